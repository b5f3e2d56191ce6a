from pathlib import Path
from zipfile import ZipFile

from actors.driver.package import MAX_PACKAGE_BYTES, PackageListing, package_listing, packaged_files


def make_tree(root: Path) -> None:
    for name, size in {
        "job.py": 10,
        "untracked.bin": 500,
        "run.log": 1,
        "keep.log": 2,
        "output/exp_1/model.bin": 9000,
        "docs/build/page.html": 3,
        "docs/page.md": 4,
        "deep/secret.txt": 5,
        "deep/er/secret.txt": 6,
        "big/data.parquet": 7000,
        ".git/HEAD": 8,
        ".venv/bin/python": 9,
        "pkg/__pycache__/x.pyc": 11,
        "pkg/x.py": 12,
        ".env": 13,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * size)
    (root / ".gitignore").write_text("# comment\noutput/\n*.log\n!keep.log\n/docs/build\n")
    (root / ".rayignore").write_text("big\n")
    (root / "deep/.gitignore").write_text("secret.txt\n")


def test_ignored_files_stay_and_untracked_ones_travel(tmp_path: Path):
    make_tree(tmp_path)
    assert set(packaged_files(tmp_path)) == {
        *(".env", ".gitignore", ".rayignore", "deep/.gitignore"),
        *("docs/page.md", "job.py", "keep.log", "pkg/x.py", "untracked.bin"),
    }


def test_the_listing_is_what_ray_would_pack(tmp_path: Path):
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    root = tmp_path / "root"
    make_tree(root)
    target = tmp_path / "package.zip"
    create_package(
        str(root), target, include_gitignore=True, include_parent_dir=False, excludes=get_runtime_env_default_excludes()
    )
    with ZipFile(target) as package:
        assert {name for name in package.namelist() if not name.endswith("/")} == set(packaged_files(root))


def test_largest_files_come_first(tmp_path: Path):
    for size in range(1, 8):
        (tmp_path / f"{size}.bin").write_bytes(b"x" * size)
    assert package_listing(tmp_path) == PackageListing(
        num_bytes=28, num_files=7, largest=[("7.bin", 7), ("6.bin", 6), ("5.bin", 5), ("4.bin", 4), ("3.bin", 3)]
    )


def test_a_package_over_the_limit_names_its_largest_file():
    size = MAX_PACKAGE_BYTES + 1
    text = PackageListing(num_bytes=size, num_files=1, largest=[("data/all.parquet", size)]).describe()
    assert "100.0 MiB" in text and "data/all.parquet" in text and ".rayignore" in text


def test_the_limit_is_that_of_rays_dashboard():
    from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE

    assert MAX_PACKAGE_BYTES == DASHBOARD_CLIENT_MAX_SIZE
