"""What the emulated machines of tools/emulated have in common: a kernel of Debian 12, and an initial file system whose
first process runs the tests one by one."""
import os
import pathlib
import re
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
KERNEL = "linux-image-cloud-amd64"


class Machine:
    """Keeps all that is fetched and made in build/NAME."""

    def __init__(self, name):
        self.dir = ROOT / "build" / name
        self.dir.mkdir(parents=True, exist_ok=True)

    def call(self, *words, cwd=ROOT, log=None):
        out = open(self.dir / log, "w") if log else None
        subprocess.run([str(w) for w in words], cwd=cwd, check=True, stdout=out, stderr=out and subprocess.STDOUT)

    def packages(self, *names):
        """The folder where the kernel's package and names are unpacked."""
        root = self.dir / "root"
        if list(root.glob("boot/vmlinuz*")):
            return root
        out = subprocess.run(["apt-cache", "depends", KERNEL], check=True, capture_output=True, text=True).stdout
        kernel = re.search(r"Depends: (linux-image-\S+)", out).group(1)
        (self.dir / "debs").mkdir(exist_ok=True)
        self.call("apt-get", "download", "-q", kernel, *names, cwd=self.dir / "debs", log="apt")
        for deb in (self.dir / "debs").glob("*.deb"):
            self.call("dpkg-deb", "-x", deb, root)
        return root

    def kernel(self):
        return next((self.dir / "root").glob("boot/vmlinuz*"))

    def initrd(self, tests):
        """The file system with tests/tensor/TEST as static programs, as bytes."""
        call, made = self.call, self.dir / "tests"
        call("cmake", "-S", ".", "-B", made, "-G", "Ninja", "-DBATON_MODE=release", "-DBATON_XFER_ONLY=ON",
             "-DCMAKE_EXE_LINKER_FLAGS=-static", "--log-level=ERROR", log="cmake")
        call("ninja", "-C", made, *[f"tests/tensor-{t}" for t in tests], log="ninja")
        call("gcc", "-O2", "-static", "-o", self.dir / "init", "tools/emulated/init.c")
        files = [("dev", 0o40755, (0, 0), b""), ("dev/console", 0o20600, (5, 1), b""), ("sys", 0o40755, (0, 0), b""),
                 ("tmp", 0o41777, (0, 0), b""), ("tests", 0o40755, (0, 0), b""),
                 ("init", 0o100755, (0, 0), (self.dir / "init").read_bytes())]
        for name in tests:
            stripped = self.dir / f"{name}.stripped"
            call("strip", "-o", stripped, made / "tests" / f"tensor-{name}")
            files.append((f"tests/{name}", 0o100755, (0, 0), stripped.read_bytes()))
        return archive(files)

    def boot(self, command, serial, limit):
        """Returns what the machine wrote to the file serial, which is shown as it comes; it has limit seconds."""
        serial.write_text("")
        machine = subprocess.Popen(command, cwd=self.dir, stdin=subprocess.DEVNULL,
                                   stdout=open(self.dir / "machine.out", "w"), stderr=subprocess.STDOUT)
        end, shown, text = time.monotonic() + limit, 0, ""
        while time.monotonic() < end and machine.poll() is None and "init: all ended" not in text:
            time.sleep(1)
            text = serial.read_text(errors="replace").replace("\r", "")
            print(text[shown:], end="", flush=True)
            shown = len(text)
        machine.kill()
        machine.wait()
        return text


def passed(text, test):
    return f"init: {test} ended with 0\n" in text


def archive(files):
    """Of cpio's "newc" kind: [(name, mode, device, bytes)]."""
    out = bytearray()
    for i, (name, mode, device, data) in enumerate(files + [("TRAILER!!!", 0, (0, 0), b"")]):
        fields = [i + 1, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)
