"""Makes the files that backends load: ONNX graphs and TensorRT plans of a model's parts."""
