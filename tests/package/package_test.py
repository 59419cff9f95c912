"""The installed libbaton-xfer: what it needs, what it exports, and that C and
C++ programs compile and run against it alone."""
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
from cluster import main  # noqa: E402

BUILD = os.environ["BATON_BUILD"]
HEADERS = ["xfer/xfer.h", "xfer/store.h", "xfer/binding.h"]
SMEM = ["dropin/smem.h", "dropin/smem_trans.h"]


def run(*command, **kw):
    r = subprocess.run(command, stdout=subprocess.PIPE, text=True,
                       stderr=subprocess.STDOUT, timeout=120, **kw)
    if r.returncode:
        raise AssertionError(f"{command}: {r.returncode}\n{r.stdout}")
    return r.stdout


def declared(prefix, headers):
    """Names of the functions that the headers declare."""
    names = set()
    for header in headers:
        with open(os.path.join(prefix, "include", "baton", header)) as f:
            text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
        text = re.sub(r'^#.*$|extern "C" \{', "", text, flags=re.M)
        text = re.sub(r"typedef[^;{]*;", "", text)
        for line in re.findall(r"^[a-z].*?;", text, flags=re.S | re.M):
            found = re.match(r"[\w\s*]*?\b(\w+)\(", line)
            if found and "{" not in line[:found.end()]:
                names.add(found.group(1))
    return names


def exported(library):
    out = run("nm", "-D", "--defined-only", library)
    return {line.split()[-1] for line in out.splitlines()}


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.prefix = os.path.join(cls.folder.name, "usr")
        run("cmake", "--install", BUILD, "--component", "xfer", "--prefix",
            cls.prefix)
        pc = glob.glob(cls.prefix + "/lib*/**/baton-xfer.pc", recursive=True)
        cls.lib = os.path.dirname(os.path.dirname(pc[0]))
        cls.env = dict(os.environ, LD_LIBRARY_PATH=cls.lib,
                       PKG_CONFIG_PATH=os.path.dirname(pc[0]))

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def flags(self, *what):
        return run("pkg-config", *what, "baton-xfer", env=self.env).split()

    def test_needs_libc_alone(self):
        for library in (self.lib + "/libbaton-xfer.so",
                        self.lib + "/baton/libmf_smem.so",
                        self.lib + "/baton/libtransfer_engine.so"):
            needed = re.findall(r"\(NEEDED\).*\[(.*)\]",
                                run("readelf", "-d", library))
            for name in needed:
                self.assertRegex(name, r"^(lib(c|pthread|dl)\.so\.\d|"
                                 r"ld-linux.*|libbaton-xfer\.so\.0)$", library)
            run("ldd", "-r", library)

    def test_soname(self):
        out = run("readelf", "-d", self.lib + "/libbaton-xfer.so")
        self.assertIn("[libbaton-xfer.so.0]", out)

    def test_exports_what_its_headers_declare(self):
        names = declared(self.prefix, HEADERS)
        self.assertIn("xfer_open", names)
        texts = {"baton_err_name", "baton_err_text", "baton_why_text"}
        self.assertEqual(exported(self.lib + "/libbaton-xfer.so"),
                         names | texts)
        self.assertEqual(exported(self.lib + "/baton/libmf_smem.so"),
                         declared(self.prefix, SMEM))
        self.assertEqual(exported(self.lib + "/baton/libtransfer_engine.so"),
                         declared(self.prefix, ["dropin/transfer_engine_c.h"]))
        out = run("nm", "-g", "--defined-only", self.lib + "/libbaton-xfer.a")
        static = {line.split()[-1] for line in out.splitlines()
                  if len(line.split()) == 3}
        self.assertEqual(static, names | texts)

    def example(self, *link):
        program = os.path.join(self.folder.name, "example")
        run("cc", "-std=gnu17", "-Wall", "-Wextra", "-Werror", "-o", program,
            ROOT + "/tests/package/example.c", *self.flags("--cflags"), *link)
        out = run(program, env=self.env)
        self.assertIn("written over: memfd mapping", out)
        self.assertIn("target has: hello from another process", out)

    def test_example_with_the_shared_library(self):
        self.example(*self.flags("--libs"))

    def test_example_with_the_static_library(self):
        self.example(self.lib + "/libbaton-xfer.a", "-pthread")

    def test_headers_compile_alone(self):
        for compiler, language in (("cc", "c"), ("g++", "c++")):
            if not shutil.which(compiler):
                continue
            for header in HEADERS + SMEM + ["dropin/transfer_engine_c.h"]:
                run(compiler, "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
                    *self.flags("--cflags"), "-x", language, "-",
                    input=f"#include <{header}>\n")


if __name__ == "__main__":
    main()
