"""Makes every artefact that the engine loads: ONNX files, TensorRT plans, the embedded model."""
