"""The wheels: made, installed offline into a fresh environment, and used there
as SGLang's and vllm-ascend's connectors use the originals (calls.py)."""
import glob
import os
import re
import subprocess
import sys
import tempfile
import unittest
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
from cluster import free_ports, main  # noqa: E402

BUILD = os.environ["BATON_BUILD"]


def run(*command, **kw):
    r = subprocess.run(command, stdout=subprocess.PIPE, text=True,
                       stderr=subprocess.STDOUT, timeout=240, **kw)
    if r.returncode:
        raise AssertionError(f"{command}: {r.returncode}\n{r.stdout}")
    return r.stdout


class Wheels(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.wheels = os.path.join(cls.folder.name, "wheels")
        cls.venv = os.path.join(cls.folder.name, "venv")
        cls.python = os.path.join(cls.venv, "bin", "python")
        run(os.path.join(ROOT, "tools", "make-wheel"), cls.wheels,
            os.path.join(BUILD, "lib"))
        run(sys.executable, "-m", "venv", cls.venv)
        run(cls.python, "-m", "pip", "install", "--no-index", "--quiet",
            "--disable-pip-version-check", "--find-links", cls.wheels,
            "mf_adapter", "memfabric_hybrid", "mooncake-transfer-engine")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_the_library_is_inside(self):
        (wheel,) = glob.glob(self.wheels + "/baton_xfer-*.whl")
        self.assertRegex(wheel, r"-py3-none-manylinux_2_\d+_\w+\.whl$")
        with zipfile.ZipFile(wheel) as z:
            self.assertIsNone(z.testzip())
            self.assertIn("baton_xfer/lib/libbaton-xfer.so.0", z.namelist())

    def test_it_loads_with_old_glibc(self):
        """It asks for nothing newer than 2.27, and the wheel says so."""
        (wheel,) = glob.glob(self.wheels + "/baton_xfer-*.whl")
        self.assertIn("-manylinux_2_27_", wheel)
        symbols = run("objdump", "-T", BUILD + "/lib/libbaton-xfer.so.0")
        asked = [int(n) for n in re.findall(r"GLIBC_2\.(\d+)", symbols)]
        self.assertEqual(max(asked), 27)

    def test_connectors(self):
        """Each test of calls.py is one of ours."""
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        out = run(self.python, os.path.join(ROOT, "tests/package/calls.py"),
                  env=env)
        self.assertRegex(out, r"Ran \d+ tests")
        self.assertNotIn("skipped", out)

    def test_the_store_script(self):
        (port,) = free_ports(1)
        url = f"tcp://127.0.0.1:{port}"
        p = subprocess.Popen(
            [os.path.join(self.venv, "bin", "launch_ascend_mf_store")],
            env=dict(os.environ, ASCEND_MF_STORE_URL=url),
            stderr=subprocess.PIPE, text=True)
        self.assertIn(url, p.stderr.readline())
        out = run(self.python, "-c",
                  "import mf_adapter; e = mf_adapter.TransferEngine();"
                  f"print(e.initialize('{url}', '127.0.0.1:0', 'Decode', 0))")
        self.assertEqual(re.findall(r"^-?\d+$", out, re.M), ["0"])
        self.assertNotIn("not", out.lower())
        p.terminate()
        self.assertEqual(p.wait(30), 0)
        p.stderr.close()


if __name__ == "__main__":
    main()
