"""All weights of a graph lie in the files that its report has digested."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from dragnoise.engine import PlanError
from dragnoise.engine.exported import Extent, GraphId, Profile, check_graph, graph_id, write_report
from exported_parts import golden


@pytest.fixture(scope="module")
def graph() -> GraphId:
    return graph_id(golden(), "vae-encoder", Profile.at(Extent(64, 64)))


def tensor(place: str) -> TensorProto:
    """Four numbers that lie in a file."""
    lies = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    lies.data_location = TensorProto.EXTERNAL
    lies.external_data.add(key="location", value=place)
    return lies


def model_of(nodes: list[onnx.NodeProto], weights: list[TensorProto]) -> onnx.ModelProto:
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [4])
    return helper.make_model(helper.make_graph(nodes, "g", [], [out], weights))


def initializer(place: str) -> onnx.ModelProto:
    return model_of([helper.make_node("Identity", ["w"], ["out"])], [tensor(place)])


def constant(place: str) -> onnx.ModelProto:
    return model_of([helper.make_node("Constant", [], ["out"], value=tensor(place))], [])


def branch(place: str) -> onnx.ModelProto:
    """In the graph of a node's attribute."""
    inner = constant(place).graph
    node = helper.make_node("If", ["yes"], ["out"], then_branch=inner, else_branch=inner)
    return model_of([node], [helper.make_tensor("yes", TensorProto.BOOL, [], [True])])


def function(place: str) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["out"], value=tensor(place))
    model = model_of([helper.make_node("F", [], ["out"], domain="d")], [])
    opset = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("d", "F", [], ["out"], [node], opset))
    return model


def sparse(place: str) -> onnx.ModelProto:
    model = initializer("own")
    del model.graph.initializer[:]
    model.graph.sparse_initializer.add(values=tensor(place), dims=[4])
    return model


def written(folder: Path, graph: GraphId, made: Callable[[str], onnx.ModelProto], at: str) -> Path:
    """Write a graph, a file of weights of that name, its own, and a report that is right."""
    path = folder / graph.file
    for name in (at, f"{path.name}.data"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(bytes(16))
    path.write_bytes(made(at).SerializeToString())
    write_report(path, graph, {"check": {}})
    return path


WAYS = [initializer, constant, branch, function, sparse]


@pytest.mark.parametrize("made", WAYS)
def test_weights_in_its_own_file(
    made: Callable[[str], onnx.ModelProto], graph: GraphId, tmp_path: Path
) -> None:
    check_graph(written(tmp_path, graph, made, f"{graph.file}.data"), graph)


@pytest.mark.parametrize("made", WAYS)
@pytest.mark.parametrize("name", ["other.bin", "in/other.bin", "../other.bin", "in/../x"])
def test_weights_in_another_file_are_refused(
    made: Callable[[str], onnx.ModelProto], name: str, graph: GraphId, tmp_path: Path
) -> None:
    """The report tells of the graph and of its own file: both are whole."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = written(folder, graph, made, name)
    with pytest.raises(PlanError, match=rf"has weights in {name}, not in '{graph.file}.data'"):
        check_graph(path, graph)


def test_what_is_no_graph_is_refused(graph: GraphId, tmp_path: Path) -> None:
    path = written(tmp_path, graph, initializer, f"{graph.file}.data")
    path.write_bytes(b"\xff" * 99)
    write_report(path, graph, {"check": {}})
    with pytest.raises(PlanError, match=r"cannot be read; export it again \("):
        check_graph(path, graph)
