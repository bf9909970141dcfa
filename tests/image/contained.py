"""Run a program of an image as a container engine would with --read-only, --user, --cap-drop=ALL and --tmpfs /tmp.

    unshare --mount --pid --fork --kill-child python contained.py SPECIFICATION

SPECIFICATION is a file of JSON: `root`, `arguments`, `environment`, `directory`, `user`, `volumes` (what is on this
machine, by where it appears). The program takes this one's place, as process 1 of its own. The network is this
machine's. Engines need more of a kernel than some build machines give; these are the promises they make, one by one.
"""

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

PR_SET_NO_NEW_PRIVS = 38


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text())
    root = Path(given["root"])
    mount("--make-rprivate", "/")
    mount("--bind", str(root), str(root))
    mount("--options", "remount,bind,ro", str(root))
    mount("--types", "proc", "proc", str(root / "proc"))
    mount("--rbind", "/dev", str(root / "dev"))
    mount("--types", "tmpfs", "--options", "mode=1777", "tmpfs", str(root / "tmp"))
    for inside, outside in given["volumes"].items():
        at = root / inside.lstrip("/")
        mount("--bind", outside, str(at))
        mount("--options", "remount,bind,ro", str(at))
    os.chroot(root)
    os.chdir(given["directory"])
    user, group = map(int, given["user"].split(":"))
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)  # from another user than root: every capability is gone with it
    if ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        sys.exit("contained: no_new_privs can't be set")
    environment, (program, *_) = given["environment"], given["arguments"]
    found = shutil.which(program, path=environment["PATH"])
    if found is None:
        sys.exit(f"contained: {program} isn't in {environment['PATH']}")
    os.execve(found, given["arguments"], environment)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main()
