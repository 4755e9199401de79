"""The field of a drag, and maps that are moved by it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dragnoise.engine.config import FITS
from dragnoise.engine.drag.field import (
    Field,
    displacement_field,
    harmonic,
    moved,
    pieces,
    remainder,
)

SHAPE = (24, 32)
GRIP = 3.0


def points(*pairs: tuple[float, float]) -> Tensor:
    return torch.tensor(pairs)


def area(top: int = 2, bottom: int = 22, left: int = 3, right: int = 29) -> Tensor:
    editable = torch.zeros(SHAPE, dtype=torch.bool)
    editable[top:bottom, left:right] = True
    return editable


def field(*ways: tuple[tuple[float, float], tuple[float, float]], mask: Tensor | None) -> Field:
    handles, targets = zip(*ways, strict=True)
    return displacement_field(points(*handles), points(*targets), mask, SHAPE, GRIP)


def whole(rows: float, columns: float, mask: Tensor | None = None) -> Field:
    """Return a field that moves every cell alike."""
    ways = torch.tensor([rows, columns], dtype=torch.float32)
    shift = ways[:, None, None].expand(2, *SHAPE)
    editable = torch.ones(SHAPE, dtype=torch.bool) if mask is None else mask
    return Field(shift, torch.ones(SHAPE), editable)


def noise(seed: int = 0) -> Tensor:
    return torch.randn(1, 4, *SHAPE, generator=torch.Generator().manual_seed(seed))


def solved(values: Tensor, fixed: Tensor) -> Tensor:
    """Solve Laplace's equation as a system of linear equations."""
    height, width = fixed.shape
    number = np.arange(height * width).reshape(height, width)
    system = np.eye(height * width)
    known = values.flatten(1).double().numpy().T * fixed.flatten().numpy()[:, None]
    padded = np.pad(number, 1, mode="edge")
    for (row, column), cell in np.ndenumerate(number):
        if not fixed[row, column]:
            for down, right in ((0, 1), (2, 1), (1, 0), (1, 2)):
                system[cell, padded[row + down, column + right]] -= 0.25
    found = np.linalg.solve(system, known)
    return torch.from_numpy(found.T.reshape(len(values), height, width))


def test_what_is_gripped_goes_the_whole_way_and_what_must_stay_stays() -> None:
    mask = area()
    found = field(((10, 10), (14, 17)), mask=mask)
    assert found.shift[:, 8:13, 9:12].permute(1, 2, 0).reshape(-1, 2).unique(dim=0).tolist() == [
        [4, 7]
    ]
    assert (found.shift[:, ~mask] == 0).all()
    assert (found.grip[~mask] == 0).all()
    between = found.shift[1, 10, 14:29]
    assert (between.diff() < 0).all()
    assert float(between.min()) > 0


@pytest.mark.parametrize("mask", [area(), area(0, 24, 0, 20), None], ids=["area", "half", "none"])
def test_between_them_it_is_harmonic(mask: Tensor | None) -> None:
    """It is nearer to the solution of the linear equations than rounding to cells notices."""
    found = field(((10, 9), (16, 20)), mask=mask)
    fixed = (found.grip >= 1) | ~found.editable
    wanted = solved(found.shift * fixed, fixed)
    assert (found.shift - wanted).abs().max() < 0.01 * 11


def test_a_grip_goes_the_whole_way_as_one_piece() -> None:
    """A bar that is longer than any disc about its handle, as far as the mask lets it."""
    grip = torch.zeros(SHAPE, dtype=torch.bool)
    grip[9:12, 5:31] = True
    mask = area()
    found = displacement_field(points((10, 7)), points((15, 8)), mask, SHAPE, GRIP, grip)
    held = grip & mask
    assert found.shift[:, held].T.unique(dim=0).tolist() == [[5, 1]]
    assert (found.grip[held] == 1).all()
    assert (found.grip[~held] < 1).all()
    assert (found.shift[:, ~mask] == 0).all()


PAIR = points((9.0, 8.0), (13.0, 20.0))


def similar(scale: float, degrees: float, by: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Return a map as its matrix, for rows of points, and its displacement of the origin."""
    angle = math.radians(degrees)
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    return torch.tensor([[cosine, sine], [-sine, cosine]]), torch.tensor(by)


def held_by(handles: Tensor, targets: Tensor, fit: str) -> tuple[Tensor, Tensor]:
    """Return the cells of a grip with all handles, [M, 2], and where they go."""
    grip = area(6, 17, 5, 25)
    found = displacement_field(handles, targets, area(0, 24, 0, 32), SHAPE, GRIP, grip, fit)
    cells = grip.nonzero().float()
    return cells, cells + found.shift[:, grip].T


@pytest.mark.parametrize(
    ("fit", "scale", "degrees"),
    [("similarity", 1.3, 0), ("similarity", 1, 25), ("similarity", 0.7, -40), ("rigid", 1, 25)],
)
def test_two_handles_turn_and_scale_their_grip(fit: str, scale: float, degrees: float) -> None:
    matrix, by = similar(scale, degrees, (6.0, 4.5))
    cells, there = held_by(PAIR, PAIR @ matrix + by, fit)
    torch.testing.assert_close(there, cells @ matrix + by, rtol=0, atol=0.05)


def test_a_rigid_grip_does_not_shrink() -> None:
    """Where its handles come nearer to each other, what lies beyond them is as large as it was."""
    matrix, by = similar(0.8, 0, (2.0, 3.0))
    size = {}
    for fit in ("rigid", "similarity"):
        cells, there = held_by(PAIR, PAIR @ matrix + by, fit)
        beyond = cells[:, 1] > 22
        size[fit] = float(torch.pdist(there[beyond]).sum() / torch.pdist(cells[beyond]).sum())
    assert size["similarity"] == pytest.approx(0.8, abs=0.01)
    assert size["rigid"] > 0.92


def test_three_handles_shear_their_grip() -> None:
    three = torch.cat([PAIR, points((15.0, 10.0))])
    matrix, by = torch.tensor([[1.2, 0.3], [-0.1, 0.9]]), torch.tensor([1.0, -2.0])
    cells, there = held_by(three, three @ matrix + by, "affine")
    torch.testing.assert_close(there, cells @ matrix + by, rtol=0, atol=0.05)


@pytest.mark.parametrize("fit", FITS)
def test_handles_that_go_alike_move_all_alike(fit: str) -> None:
    """And what lies under a handle goes its way, whatever the others do."""
    many = torch.cat([PAIR, points((15.0, 10.0), (7.0, 22.0), (12.0, 12.0))])
    cells, there = held_by(many, many + torch.tensor([3.0, -2.0]), fit)
    torch.testing.assert_close(there, cells + torch.tensor([3.0, -2.0]))
    targets = many + torch.tensor([[3.0, 0], [1, 1], [0, 2], [-1, 0], [2, -2]])
    cells, there = held_by(many, targets, fit)
    at = (cells[:, None] == many).all(-1).float().argmax(0)
    torch.testing.assert_close(there[at], targets, rtol=0, atol=0.01)


@pytest.mark.parametrize("fit", FITS)
def test_handles_in_one_place_turn_nothing(fit: str) -> None:
    cells, there = held_by(PAIR[[0, 0]], points((11, 8), (15, 8)), fit)
    torch.testing.assert_close(there, cells + torch.tensor([4.0, 0.0]))


def test_parts_of_a_grip_follow_the_handles_in_them() -> None:
    """One without a handle follows all; one handle takes all parts along."""
    left, right, empty = area(4, 12, 4, 12), area(4, 12, 18, 26), area(16, 20, 14, 16)
    grip = left | right | empty
    handles, targets = points((8, 8), (8, 22)), points((8, 9), (12, 22))
    found = displacement_field(handles, targets, area(), SHAPE, GRIP, grip)
    assert found.shift[:, left].T.unique(dim=0).tolist() == [[0, 1]]
    assert found.shift[:, right].T.unique(dim=0).tolist() == [[4, 0]]
    assert (found.shift[0, empty] > 0).all()
    alone = displacement_field(handles[:1], targets[:1], area(), SHAPE, GRIP, grip)
    assert alone.shift[:, grip].T.unique(dim=0).tolist() == [[0, 1]]


def test_discs_that_touch_are_one_piece() -> None:
    """Pulled apart it grows, instead of tearing; a mask between them parts them."""
    handles, targets = points((12, 12), (12, 17)), points((12, 10), (12, 19))
    grown = displacement_field(handles, targets, area(), SHAPE, GRIP).shift[1, 12]
    assert grown[12:18].tolist() == pytest.approx([-2, -1.2, -0.4, 0.4, 1.2, 2], abs=0.02)
    mask = area()
    mask[:, 14:16] = False
    parted = displacement_field(handles, targets, mask, SHAPE, GRIP).shift[1, 12]
    assert parted[11:14].tolist() == [-2, -2, -2]
    assert parted[16:19].tolist() == [2, 2, 2]


def spiral(size: int) -> Tensor:
    """Return a band of one cell from the corner to the middle, with one cell between."""
    marked = torch.zeros(size, size, dtype=torch.bool)
    row = column = 0
    marked[0, 0] = True
    lengths = [size - 1, *(length for least in range(size - 1, 0, -2) for length in (least, least))]
    for turn, length in enumerate(lengths):
        down, right = ((0, 1), (1, 0), (0, -1), (-1, 0))[turn % 4]
        for _ in range(length):
            row, column = row + down, column + right
            marked[row, column] = True
    return marked


def flooded(marked: Tensor) -> Tensor:
    """Return the numbers of connected pieces, found one after the other."""
    left = {(int(row), int(column)) for row, column in marked.nonzero()}
    numbers = torch.zeros(marked.shape, dtype=torch.int64)
    while left:
        number = len(left)
        edge = [left.pop()]
        while edge:
            row, column = edge.pop()
            numbers[row, column] = number
            around = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)}
            edge += around & left
            left -= around
    return numbers


@pytest.mark.parametrize("share", [0.3, 0.45, 0.6, None])
def test_pieces_are_what_hangs_together(share: float | None) -> None:
    for size in (9, 33, 65):
        draws = torch.Generator().manual_seed(size)
        marked = spiral(size) if share is None else torch.rand(size, size, generator=draws) < share
        pairs = torch.stack([pieces(marked)[marked], flooded(marked)[marked]], -1).unique(dim=0)
        assert len(pairs[:, 0].unique()) == len(pairs[:, 1].unique()) == len(pairs)


def test_a_handle_beside_its_grip_moves() -> None:
    nothing = torch.zeros(SHAPE, dtype=torch.bool)
    found = displacement_field(points((10, 7)), points((15, 8)), area(), SHAPE, GRIP, nothing)
    assert found.shift[:, 10, 7].tolist() == [5, 1]
    assert int((found.grip == 1).sum()) == 1


@pytest.mark.parametrize("mask", [area(), None], ids=["mask", "no mask"])
@pytest.mark.parametrize("grip", [area(8, 12, 9, 20), None], ids=["grip", "discs"])
@pytest.mark.parametrize("fit", FITS)
def test_nothing_is_read_by_the_host(mask: Tensor | None, grip: Tensor | None, fit: str) -> None:
    """On a device without memory there is nothing to read, and no shape may depend on it."""
    handles = points((10, 10), (10, 18)).to("meta")
    editable, gripped = (None if each is None else each.to("meta") for each in (mask, grip))
    found = displacement_field(handles, handles + 3, editable, SHAPE, GRIP, gripped, fit)
    latent, holes = moved(noise().to("meta"), found)
    assert latent.shape == (1, 4, *SHAPE)
    assert holes.shape == SHAPE
    assert remainder(noise().to("meta"), found).shape == (1, 4, *SHAPE)


def test_where_nothing_must_stay_everything_goes() -> None:
    found = field(((10, 9), (16, 20)), mask=area(0, 24, 0, 32))
    share = found.shift / torch.tensor([6.0, 11.0])[:, None, None]
    assert (share - 1).abs().max() < 0.02


def test_every_handle_goes_its_own_way() -> None:
    found = field(((6, 8), (6, 4)), ((16, 22), (20, 26)), mask=area())
    assert found.shift[:, 6, 8].tolist() == [0, -4]
    assert found.shift[:, 16, 22].tolist() == [4, 4]
    assert 0 < float(found.grip[11, 15]) < 1


def test_without_a_mask_it_fades_out() -> None:
    found = field(((4, 4), (4, 6)), mask=None)
    assert found.shift[:, 4, 4].tolist() == [0, 2]
    assert (found.shift[:, :, 20:] == 0).all()
    assert not found.editable[:, 20:].any()


def test_a_moved_map_keeps_the_deviation_of_noise() -> None:
    """Nearest sampling keeps it; bilinear sampling loses up to half of it."""
    latent = torch.randn(1, 64, *SHAPE, generator=torch.Generator().manual_seed(0))
    bent = field(((10, 10), (13, 17)), mask=area())
    moved_map, holes = moved(latent, bent)
    went = (bent.shift.square().sum(0) > 1) & ~holes
    assert float(moved_map[:, :, went].std()) == pytest.approx(1, rel=0.02)
    rows = torch.arange(SHAPE[0])[:, None] - bent.shift[0]
    columns = torch.arange(SHAPE[1]) - bent.shift[1]
    grid = torch.stack([columns / (SHAPE[1] - 1), rows / (SHAPE[0] - 1)], -1)[None] * 2 - 1
    blurred = F.grid_sample(latent, grid, "bilinear", "border", align_corners=True)
    assert float(blurred[:, :, went].std()) < 0.85
    half = F.avg_pool2d(latent, 2, 1)  # what bilinear sampling is half a cell off, both ways
    assert float(half.std()) == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("way", [(0.5, 1.5), (-2.5, 3.5), (0.25, -0.75)])
def test_a_way_of_half_cells_leaves_no_gaps(way: tuple[float, float]) -> None:
    latent = noise()
    _, holes = moved(latent, whole(*way))
    assert not holes[4:-4, 5:-5].any()


def test_cells_are_moved_and_leave_holes() -> None:
    latent = noise()
    moved_map, holes = moved(latent, whole(3, -5))
    assert torch.equal(moved_map[:, :, 3:, :-5], latent[:, :, :-3, 5:])
    assert holes.sum() == 24 * 32 - 21 * 27
    assert torch.equal(moved_map[:, :, holes], latent[:, :, holes])


def test_nothing_leaves_the_mask_or_comes_into_it() -> None:
    latent, mask = noise(), area(6, 18, 8, 24)
    moved_map, holes = moved(latent, whole(4, 6, mask))
    assert torch.equal(moved_map[:, :, ~mask], latent[:, :, ~mask])
    assert not holes[~mask].any()
    assert torch.equal(moved_map[:, :, 10:18, 14:24], latent[:, :, 6:14, 8:18])
    assert holes[6:10, 8:24].all()


def test_the_most_firmly_gripped_cell_wins() -> None:
    """Two cells come to one; of equals it is always the same one."""
    latent = noise()
    shift = torch.zeros(2, *SHAPE)
    shift[1, 5, 6] = 3
    shift[1, 5, 12] = -3
    editable = torch.ones(SHAPE, dtype=torch.bool)
    for firm, weak in (((5, 6), (5, 12)), ((5, 12), (5, 6))):
        grip = torch.zeros(SHAPE)
        grip[firm] = 1.0
        grip[weak] = 0.5
        moved_map, _ = moved(latent, Field(shift, grip, editable))
        assert torch.equal(moved_map[0, :, 5, 9], latent[(0, slice(None), *firm)])
    alike = Field(shift, torch.zeros(SHAPE), editable)
    assert torch.equal(moved(latent, alike)[0], moved(latent.clone(), alike)[0])


def test_a_smooth_map_comes_to_where_it_should_and_not_to_the_next_cell() -> None:
    """Of a wave that goes on by parts of cells, a tenth of nearest sampling's error is left."""

    def wave(rows: float, columns: float) -> Tensor:
        down = torch.arange(SHAPE[0], dtype=torch.float32)[:, None] - rows
        across = torch.arange(SHAPE[1], dtype=torch.float32) - columns
        return (torch.sin(down / 4) * torch.cos(across / 5))[None, None]

    way = (2.4, -3.5)
    nearest, holes = moved(wave(0, 0), whole(*way))
    inside = ~holes
    inside[:4] = inside[-3:] = inside[:, :3] = inside[:, -5:] = False
    wanted = wave(*way)[0, 0, inside]
    smooth = nearest + remainder(wave(0, 0), whole(*way))
    assert (nearest[0, 0, inside] - wanted).abs().max() > 0.09
    assert (smooth[0, 0, inside] - wanted).abs().max() < 0.009
    assert (remainder(wave(0, 0), whole(*way))[:, :, holes] == 0).all()


@pytest.mark.parametrize("way", [(0, 0), (3, -5)])
def test_whole_cells_leave_no_remainder(way: tuple[float, float]) -> None:
    assert (remainder(noise(), whole(*way, area())) == 0).all()


@pytest.mark.parametrize("mask", [area(), None], ids=["mask", "no mask"])
def test_a_way_of_no_length_moves_nothing(mask: Tensor | None) -> None:
    latent = noise()
    moved_map, holes = moved(latent, field(((10, 10), (10, 10)), ((4, 20), (4, 20)), mask=mask))
    assert torch.equal(moved_map, latent)
    assert not holes.any()


def test_a_handle_outside_the_mask_moves_nothing() -> None:
    latent = noise()
    moved_map, _ = moved(latent, field(((12, 30), (12, 20)), mask=area(right=20)))
    assert torch.equal(moved_map, latent)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (7, 9), (8, 8), (33, 17)])
def test_maps_of_any_size(shape: tuple[int, int]) -> None:
    """What is fixed stays as it is; the rest lies between."""
    values = torch.zeros(1, *shape)
    fixed = torch.zeros(shape, dtype=torch.bool)
    fixed[0, 0] = fixed[-1, -1] = True
    values[0, 0, 0] = 1.0
    found = harmonic(values, fixed)
    assert found.shape == values.shape
    assert torch.equal(found[:, fixed], values[:, fixed])
    assert ((found >= 0) & (found <= 1)).all()
