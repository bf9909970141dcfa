"""The image, built by buildah on a base that is made here: public registries of images aren't needed."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / ".cache" / "image"
BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates", "usr-is-merged")
PERL = ("usrmerge", "perl", "perl-modules-*", "libperl5*")  # installed to move files once, and half as much as all else
BASE_LACKS = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")
PROGRAMS = {
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "qemu-x86_64-static": "qemu-user-static",
}
BASE, IMAGE = "localhost/streamlstm-test-base:1", "localhost/streamlstm-test:1"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
ENVIRONMENT = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}


@dataclass(frozen=True)
class Image:
    """A built image: what its configuration says, and its root file system on this machine."""

    config: dict[str, object]
    root: Path
    container: str

    def strings(self, name: str) -> list[str]:
        """A list of the configuration; empty where it isn't set."""
        found = self.config.get(name)
        return [str(each) for each in found] if isinstance(found, list) else []

    @property
    def environment(self) -> dict[str, str]:
        pairs = (each.partition("=") for each in self.strings("Env"))
        return {name: value for name, _, value in pairs}

    def close(self) -> None:
        buildah("umount", self.container)
        buildah("rm", self.container)


@dataclass(frozen=True)
class Specification:
    """What is run in it; see contained.py. What isn't given is the image's own."""

    image: Image
    arguments: list[str] | None = None
    entrypoint: list[str] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    volumes: dict[str, Path] = field(default_factory=dict)
    user: str | None = None

    def command(self, name: str) -> list[str]:
        """The command on this machine that runs it; its specification is kept as `name`."""
        image = self.image
        for inside, outside in self.volumes.items():
            _mount_point(image.root / inside.lstrip("/"), outside)
        content = {
            "root": str(image.root),
            "arguments": [
                *(image.strings("Entrypoint") if self.entrypoint is None else self.entrypoint),
                *(image.strings("Cmd") if self.arguments is None else self.arguments),
            ],
            "environment": image.environment | self.environment,
            "directory": image.config.get("WorkingDir") or "/",
            "user": self.user or image.config["User"],
            "volumes": {inside: str(outside.resolve()) for inside, outside in self.volumes.items()},
        }
        path = FOLDER / f"{name}.json"
        path.write_text(json.dumps(content))
        contained = [sys.executable, str(Path(__file__).with_name("contained.py")), str(path)]
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", *contained]


def _mount_point(inside: Path, outside: Path) -> None:
    if inside.exists():
        return
    inside.parent.mkdir(parents=True, exist_ok=True)
    if outside.is_dir():
        inside.mkdir()
    else:
        inside.touch()


def build() -> Image:
    """Build base and image, and mount the image's files."""
    require_programs()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not _exists(BASE):
        _make_base()
    index = [f"PIP_INDEX_URL={url}" for url in [os.environ.get("PIP_INDEX_URL")] if url]
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    arguments = [f"BASE={BASE}", *index, f"REVISION={revision.stdout.strip()}"]
    buildah(
        "bud", "--pull-never", "--layers", "--format=docker",  # OCI's own format has no health check
        *(f"--build-arg={each}" for each in arguments),
        "-f", "deploy/image/Dockerfile", "-t", IMAGE, ".",
    )  # fmt: skip
    described = json.loads(buildah("inspect", "--type=image", IMAGE, quiet=True))
    container = buildah("from", "--pull-never", IMAGE, quiet=True).strip()
    root = Path(buildah("mount", container, quiet=True).strip())
    return Image(described["Docker"]["config"], root, container)


def _make_base() -> None:
    """Debian as its slim images are, with Python, that knows the certificates which this machine trusts."""
    tarball = FOLDER / "base.tar"
    if not tarball.exists():
        draft = FOLDER / "draft.tar"
        options = ["--variant=minbase", f"--include={','.join(BASE_PACKAGES)}"]
        options += [f"--dpkgopt=path-exclude={path}" for path in BASE_LACKS]
        options.append(f"""--customize-hook=chroot "$1" apt-get purge -y --auto-remove '{"' '".join(PERL)}'""")
        subprocess.run(["mmdebstrap", *options, "bookworm", str(draft)], check=True)
        draft.rename(tarball)
    container = buildah("from", "scratch", quiet=True).strip()
    buildah("add", "--quiet", container, str(tarball), "/")
    if CERTIFICATES.exists():
        buildah("copy", "--quiet", container, str(CERTIFICATES), str(CERTIFICATES))
    buildah("commit", "--quiet", container, BASE)
    buildah("rm", container)


def _exists(image: str) -> bool:
    return image in buildah("images", "--format={{.Name}}:{{.Tag}}", quiet=True).splitlines()


def buildah(*arguments: str, quiet: bool = False) -> str:
    """Run it; returns what it says on standard output when `quiet`."""
    done = subprocess.run(
        ["buildah", *arguments],
        cwd=CHECKOUT,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE if quiet else None,
        text=True,
        check=True,
    )
    return done.stdout or ""


def require_programs() -> None:
    """What isn't there is installed by root on Debian; elsewhere this ends with the command that does it."""
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0:
        sys.exit(f"the image's test mounts file systems: run it as root (packages: {' '.join(PROGRAMS.values())})")
    if missing:
        if shutil.which("apt-get") is None:
            sys.exit(f"the image's test needs {', '.join(missing)}; on Debian: sudo {' '.join(install)}")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-q"], check=True, env=environment)
        subprocess.run(install, check=True, env=environment)
