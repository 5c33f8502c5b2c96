"""Triangle meshes of turned, milled and coiled parts, and their text for POV-Ray.

Units are centimetres, z is up. Everything is a loft of rings: a ring is a closed line of points,
and consecutive rings are joined by two triangles a cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SMOOTH_COSINE = 0.80  # faces that meet at less than 37 degrees share one normal


@dataclass(frozen=True)
class Mesh:
    """Triangles. `vertices` [V, 3] float64, `faces` [F, 3] int64."""

    vertices: Array
    faces: NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """A kind of thing: named meshes with their materials, and the rotations [3, 3] it rests in."""

    pieces: tuple[tuple[str, Mesh, str], ...]
    rests: tuple[Array, ...]

    @property
    def points(self) -> Array:
        """[V, 3] all vertices."""
        return np.concatenate([mesh.vertices for _, mesh, _ in self.pieces])


def rotation(axis: int, degrees: float) -> Array:
    """Rotation about x (0), y (1) or z (2)."""
    turned = np.radians(degrees)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(turned)
    matrix[first, second], matrix[second, first] = -np.sin(turned), np.sin(turned)
    return matrix


def loft(rings: Array, closed: bool = False) -> Mesh:
    """Join rings [J, N, 3] into a skin; `closed` joins the last to the first, as around a bore."""
    count, around, _ = rings.shape
    steps = count if closed else count - 1
    j, i = np.meshgrid(np.arange(steps), np.arange(around), indexing="ij")
    below, above, after = j * around, ((j + 1) % count) * around, (i + 1) % around
    a, b, c, d = below + i, below + after, above + after, above + i
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    return Mesh(rings.reshape(-1, 3), faces)


def turn(radius: Array, height: Array, closed: bool = False) -> Mesh:
    """Skin around the z axis from `radius` and `height`, broadcast to [J, N]: ring j, angle n."""
    radius, height = np.broadcast_arrays(radius, height)
    angle = angles(radius.shape[1])
    return loft(np.stack([radius * np.cos(angle), radius * np.sin(angle), height], -1), closed)


def angles(count: int) -> Array:
    """[N] angles of a full turn."""
    return np.asarray(np.arange(count) * (2 * np.pi / count), np.float64)


def tube(path: Array, radius: float, sides: int = 14, phase: float = 0.0) -> Mesh:
    """Wire of `sides` sides along `path` [n, 3], with flat ends."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    normal = np.empty_like(path)
    seed = np.eye(3)[np.argmin(np.abs(tangent[0]))]
    for k, direction in enumerate(tangent):  # carried along, the frame does not twist
        seed = seed - direction * (seed @ direction)
        seed /= np.linalg.norm(seed)
        normal[k] = seed
    side = np.cross(tangent, normal)
    angle = angles(sides) + phase
    circle = np.cos(angle)[:, None] * normal[:, None] + np.sin(angle)[:, None] * side[:, None]
    ends = [(0, 1e-3, 0.0), (0, 0.82, 0.0), (0, 1.0, 0.18)]
    rings = [
        path[k] + circle[k] * radius * scale + tangent[k] * radius * shift
        for k, scale, shift in ends
    ]
    rings += [path[k] + circle[k] * radius for k in range(1, len(path) - 1)]
    rings += [
        path[-1] + circle[-1] * radius * scale - tangent[-1] * radius * shift
        for _, scale, shift in ends[::-1]
    ]
    return loft(np.stack(rings))


def corner_normals(mesh: Mesh) -> Array:
    """[F, 3, 3] normal of each corner: the mean over faces around it, none across a sharp edge."""
    corners = mesh.vertices[mesh.faces]
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    unit = area / np.maximum(np.linalg.norm(area, axis=1, keepdims=True), 1e-12)
    order = np.argsort(mesh.faces.ravel(), kind="stable")
    vertex = mesh.faces.ravel()[order]
    rank = np.arange(len(vertex)) - np.searchsorted(vertex, vertex)
    around = np.full((len(mesh.vertices), int(rank.max()) + 1), -1, np.int64)
    around[vertex, rank] = order // 3
    total = np.zeros_like(corners)
    for near in np.moveaxis(
        around[mesh.faces], -1, 0
    ):  # near [F, 3]: one face around each corner, -1 = none
        close = (near >= 0) & (np.einsum("fcx,fx->fc", unit[near], unit) > SMOOTH_COSINE)
        total += area[near] * close[..., None]
    return total / np.maximum(np.linalg.norm(total, axis=-1, keepdims=True), 1e-12)


def pov_mesh(name: str, mesh: Mesh) -> str:
    """POV-Ray's `#declare name = mesh2 {...}` with smoothed normals, zero-area faces left out."""
    corners = mesh.vertices[mesh.faces]
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    keep = area > 1e-9
    normals, index = np.unique(
        corner_normals(mesh)[keep].round(4).reshape(-1, 3), axis=0, return_inverse=True
    )
    parts = [f"#declare {name} = mesh2 {{", _block("vertex_vectors", mesh.vertices, "%.4f")]
    parts.append(_block("normal_vectors", normals, "%.4f"))
    parts.append(_block("face_indices", mesh.faces[keep], "%d"))
    parts.append(_block("normal_indices", index.reshape(-1, 3), "%d"))
    return "\n".join([*parts, "inside_vector <0, 0, 1>", "}"])


def _block(word: str, rows: NDArray[np.float64] | NDArray[np.int64], number: str) -> str:
    row = f"<{number},{number},{number}>"
    return f"{word} {{ {len(rows)},\n" + ",\n".join(row % tuple(r) for r in rows.tolist()) + " }"
