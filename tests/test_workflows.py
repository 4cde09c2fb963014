"""The workflows can only run on GitHub; what can be known about them beforehand is tested here."""

import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from clone import clone, git

import address
import lstm_lib
import repo
from chapters import ROOT

FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.yml"))}
JOBS = {f"{name}/{job}": body for name, flow in WORKFLOWS.items() for job, body in flow["jobs"].items()}
STEPS = [step for job in JOBS.values() for step in job.get("steps", ())]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

needs_bash = pytest.mark.skipif(os.name == "nt", reason="the script runs in bash on Linux")


def events(name: str) -> dict:
    """What starts a workflow. YAML 1.1 takes the key `on` for the truth value."""
    return WORKFLOWS[name][True]


def commands(*jobs: str) -> list[str]:
    """All lines that the jobs run in the shell."""
    return [line for job in jobs for step in JOBS[job]["steps"] for line in step.get("run", "").splitlines()]


def script(job: str, marker: str) -> str:
    """The one script of a job that holds a text."""
    [found] = [step["run"] for step in JOBS[job]["steps"] if marker in step.get("run", "")]
    return found


def bash(text: str, cwd, **variables: str) -> subprocess.CompletedProcess:
    """Run a script as GitHub does where a step names no shell."""
    return subprocess.run(
        ["bash", "-e", "-c", text], cwd=cwd, env=os.environ | variables, text=True, capture_output=True
    )


def test_there_are_five():
    assert set(WORKFLOWS) == {"test", "gpu", "publish", "links", "release"}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow_grants_nothing_by_itself_and_has_a_concurrency_group(name):
    assert WORKFLOWS[name]["permissions"] == {}
    assert WORKFLOWS[name]["concurrency"]["group"]


@pytest.mark.parametrize("name", JOBS)
def test_job_has_permissions_and_a_time_limit(name):
    job = JOBS[name]
    assert job["permissions"]
    # The time limits of a called workflow are its own; GitHub refuses one beside `uses`.
    assert "uses" in job or 0 < job["timeout-minutes"] <= 360


def test_only_four_jobs_may_write():
    writing = {
        name: {what for what, right in job["permissions"].items() if right == "write"}
        for name, job in JOBS.items()
    }
    assert {name: rights for name, rights in writing.items() if rights} == {
        "publish/copies": {"contents"},
        "publish/deploy": {"pages", "id-token"},
        "links/check": {"issues"},
        "release/publish": {"contents"},
    }


def test_actions_are_pinned_by_major_version():
    used = {step["uses"] for step in STEPS if "uses" in step}
    assert used
    assert [action for action in used if not re.fullmatch(r"actions/[\w-]+@v\d+", action)] == []
    versions = dict(action.split("@") for action in used)
    assert len(versions) == len(used), "one action in two versions"


def test_called_workflows_exist_and_can_be_called():
    called = [job["uses"] for job in JOBS.values() if "uses" in job]
    assert set(called) == {"./.github/workflows/test.yml"}
    assert "workflow_call" in events("test")


def test_every_make_target_exists():
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    used = {target for step in STEPS for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))}
    assert {"book", "test", "test-browser", "run", "repo", "pdf", "epub"} <= used <= targets


def test_pip_cache_depends_on_what_is_installed():
    setups = [step["with"] for step in STEPS if step.get("uses", "").startswith("actions/setup-python@")]
    assert len(setups) == 8
    for setup in setups:
        assert setup["cache"] == "pip"
        assert setup["cache-dependency-path"].split() == ["requirements.txt", "pyproject.toml"]
        assert all((ROOT / name).exists() for name in setup["cache-dependency-path"].split())


def test_three_systems_and_the_oldest_python_that_we_promise():
    oldest = PROJECT["requires-python"].removeprefix(">=")
    matrix = JOBS["test/make"]["strategy"]["matrix"]
    assert matrix["os"] == ["ubuntu-latest"]
    assert matrix["python"][0] == oldest
    assert {"os": "macos-latest", "python": oldest} in matrix["include"]
    assert JOBS["test/windows"]["runs-on"] == "windows-latest"
    assert all(isinstance(version, str) for version in matrix["python"]), "3.10 is a string, or else 3.1"


def test_the_oldest_pytorch_that_we_promise_and_the_newest():
    """Every floor in pyproject.toml is a release with which the library's tests run."""
    needs = sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"])
    floors = [need.replace(">=", "==") + ".*" for need in needs if ">=" in need]
    assert floors[0].startswith("torch==")
    assert JOBS["test/torch"]["strategy"]["matrix"]["packages"] == [" ".join(floors), "torch"]
    index, install, _, test = commands("test/torch")
    assert index == script("test/make", "PIP_EXTRA_INDEX_URL")
    assert install.startswith('python -m pip install --quiet ${{ matrix.packages }} -e ".[book]" ')
    assert " pytest " in test


@pytest.mark.skipif(sys.platform != "linux", reason="the job runs on Linux")
def test_all_tests_of_layers_run_on_both():
    *_, choose, _ = commands("test/torch")
    done = bash(f'{choose}\necho "$tests"', ROOT)
    assert done.returncode == 0, done.stderr
    found = {line.removeprefix("tests/test_").removesuffix(".py") for line in done.stdout.split()}
    layers = {path.stem for path in ROOT.glob("lstm_lib/*.py")}
    assert {"cells", "fused", "init", "recurrent", "scan", "trace", "training", "variants"} <= found
    assert {name for name in layers if (ROOT / "tests" / f"test_{name}.py").exists()} <= found
    assert not found & {"bench", "book", "claims", "colab", "datasets", "ledger", "notebook_files", "repo"}


def test_linux_and_macos_run_the_two_commands():
    assert [line for line in commands("test/make") if "make" in line] == ["make book", "make test"]
    assert "requirements-print.txt" in script("test/make", "pip install"), "or no test makes a PDF"


def test_every_page_is_looked_at():
    index, *run = commands("test/browser")
    assert index == script("test/make", "PIP_EXTRA_INDEX_URL")
    assert run == ["make book", "make test-browser"]
    recipe = MAKEFILE.partition("\ntest-browser:")[2].partition("\n\n")[0]
    assert "requirements-look.txt" in recipe
    assert "LOOK=all" in recipe


@pytest.mark.skipif(not shutil.which("make"), reason="make itself says what the recipes are")
def test_windows_runs_the_recipes_of_the_makefile():
    def recipe(target: str) -> list[str]:
        dry = ["make", "-n", "-W", "requirements.txt", "PYTHON=python", "BIN=.venv/Scripts", "CPU_ONLY=", target]
        lines = subprocess.run(dry, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
        return [" ".join(line.split()) for line in lines if not line.startswith(("touch", "make", "echo"))]

    book, test = recipe("book"), recipe("test")
    assert commands("test/windows") == [*book, *(line for line in test if line not in book)]
    exported = dict(re.findall(r"^export (\w+) = (.*)$", MAKEFILE, re.MULTILINE))
    assert exported.items() <= JOBS["test/windows"]["env"].items()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyPI's torch is that of the CPU")
@pytest.mark.parametrize(
    ("driver", "told", "cpu_only"), [(False, {}, True), (True, {}, False), (False, {"PIP_INDEX_URL": "x"}, False)]
)
def test_a_machine_without_a_driver_takes_pytorch_without_cuda(tmp_path, driver, told, cpu_only):
    for name in ("make", "uname", "grep", "sh"):
        (tmp_path / name).symlink_to(shutil.which(name))
    if driver:
        (tmp_path / "nvidia-smi").symlink_to(shutil.which("true"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    done = subprocess.run(
        ["make", "-n", "-W", "requirements.txt", f"PYTHON={sys.executable}", ".venv/.ready"],
        cwd=ROOT,
        env=kept | {"PATH": str(tmp_path), "PIP_CONFIG_FILE": os.devnull} | told,
        check=True,
        capture_output=True,
        text=True,
    )
    assert ("--extra-index-url https://download.pytorch.org/whl/cpu" in done.stdout) == cpu_only


def test_ci_runs_the_two_commands_and_hides_no_failure():
    lines = [
        line
        for line in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make book", "make test"]


def test_gpu_runner_stands_in_one_place():
    job = JOBS["gpu/run"]
    assert job["runs-on"] == "${{ vars.GPU_RUNNER }}"
    assert job["if"] == "vars.GPU_RUNNER != ''"
    others = [job["runs-on"] for name, job in JOBS.items() if name != "gpu/run" and "uses" not in job]
    assert all(re.fullmatch(r"(ubuntu|windows)-latest|\$\{\{ matrix\.os \}\}", label) for label in others)


def test_gpu_runs_everything_at_full_scale_and_keeps_the_results():
    assert "make run DEVICE=cuda SCALE=${{ inputs.scale || 'full' }}" in commands("gpu/run")
    upload = JOBS["gpu/run"]["steps"][-1]
    assert upload["uses"].startswith("actions/upload-artifact@")
    assert upload["if"] == "always()"
    assert "results" in upload["with"]["path"].split()


def test_no_stranger_reaches_the_gpu_or_the_pages():
    assert set(events("gpu")) == {"workflow_dispatch", "schedule"}
    assert events("publish")["push"] == {"branches": ["main"]}
    assert set(events("publish")) == {"push", "workflow_dispatch"}
    assert set(events("links")) == {"workflow_dispatch", "schedule"}


def test_nothing_is_published_that_failed_a_test():
    assert JOBS["publish/test"]["uses"] == "./.github/workflows/test.yml"
    assert set(JOBS["publish/build"]["needs"]) == {"test", "address"}
    assert JOBS["publish/build"]["if"] == "needs.address.outputs.ours == 'true'"
    assert JOBS["publish/copies"]["needs"] == "build"
    assert JOBS["publish/deploy"]["needs"] == "copies"
    upload = JOBS["publish/build"]["steps"][-1]
    assert upload["uses"].startswith("actions/upload-pages-artifact@")
    assert upload["with"] == {"path": "_build/html"}


def test_nothing_is_released_that_failed_a_test():
    assert events("release") == {"push": {"tags": ["v*"]}}
    assert JOBS["release/test"]["uses"] == "./.github/workflows/test.yml"
    assert JOBS["release/test"]["needs"] == "version"
    assert JOBS["release/build"]["needs"] == "test"
    assert JOBS["release/publish"]["needs"] == "build"
    assert not any("uses" in step for step in JOBS["release/publish"]["steps"]), "nothing of others may write"


@needs_bash
@pytest.mark.parametrize(
    ("tag", "file", "old", "new"),
    [
        ("v{}", "", "", ""),
        ("v{}.1", "lstm_lib/__init__.py", "", ""),
        ("v1{}", "lstm_lib/__init__.py", "", ""),
        ("v{}", "lstm_lib/__init__.py", '"{}"', '"{}rc1"'),
        ("v{}", "CITATION.cff", "version: {}", "version: {}1"),
        ("v{}", "CHANGELOG.md", "## {}, 2026-01-31", "## {}, not released yet"),
        ("v{}", "CHANGELOG.md", "## {}, 2026-01-31", "## {}rc1, 2026-01-31"),
    ],
)
def test_the_tag_is_the_version_everywhere(tmp_path, tag, file, old, new):
    version = lstm_lib.__version__
    (tmp_path / "lstm_lib").mkdir()
    for name in ("lstm_lib/__init__.py", "CITATION.cff", "CHANGELOG.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        if name == "CHANGELOG.md":  # as on the day of the release
            text = re.sub(f"^## {re.escape(version)}, .*", f"## {version}, 2026-01-31", text, flags=re.MULTILINE)
        if name == file:
            assert old.format(version) in text
            text = text.replace(old.format(version), new.format(version))
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = bash(script("release/version", "__version__"), tmp_path, GITHUB_REF_NAME=tag.format(version))
    assert done.returncode == bool(file), done.stderr
    assert ("::error::" in done.stdout) == bool(file)
    assert file in done.stdout


@needs_bash
@pytest.mark.skipif(not shutil.which("zip"), reason="the script needs zip")
def test_a_release_has_wheel_pages_pdf_and_epub_and_says_what_changed(tmp_path):
    (tmp_path / "_build" / "html").mkdir(parents=True)
    for name in ("html/index.html", "book-a4.pdf", "book-letter.pdf", "book.epub"):
        (tmp_path / "_build" / name).write_text("")
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n\n## 0.2.0, today\n\nNew.\n\n## 0.1.0, before\n\nOld.\n")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").write_text(
        "#!/bin/sh\ntouch release/lstm_lib-0.2.0-py3-none-any.whl\n"
    )
    (tmp_path / ".venv" / "bin" / "python").chmod(0o755)
    done = bash(script("release/build", "pip wheel"), tmp_path, GITHUB_REF_NAME="v0.2.0")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "release").iterdir()} == {
        "lstm_lib-0.2.0-py3-none-any.whl",
        "lstm-book-0.2.0-a4.pdf",
        "lstm-book-0.2.0-letter.pdf",
        "lstm-book-0.2.0-pages.zip",
        "lstm-book-0.2.0.epub",
    }
    assert (tmp_path / "notes.md").read_text().strip() == "New."


@needs_bash
@pytest.mark.parametrize(
    ("url", "ours"),
    [
        ("https://github.com/someone/some-book", "true"),
        ("https://github.com/Someone/Some-Book", "true"),  # GitHub does not tell them apart
        ("https://github.com/someone/some-book-2", "false"),
        ("https://github.com/upstream/some-book", "false"),
        ("https://github.com/YOUR_NAME/lstm-book", "false"),
    ],
)
def test_only_the_repository_named_in_the_settings_is_published(tmp_path, url, ours):
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    (tmp_path / "_config.yml").write_text(repo.configured(config, url), encoding="utf-8")
    done = bash(
        script("publish/address", "GITHUB_OUTPUT"),
        tmp_path,
        GITHUB_OUTPUT=str(tmp_path / "output"),
        GITHUB_SERVER_URL="https://github.com",
        GITHUB_REPOSITORY="someone/some-book",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "output").read_text() == f"ours={ours}\n"
    assert ("::notice::" in done.stdout) == (ours == "false")


@needs_bash
def test_published_pages_know_their_address(tmp_path):
    config = tmp_path / "_config.yml"
    before = repo.configured((ROOT / "_config.yml").read_text(encoding="utf-8"), "https://github.com/a/b")
    config.write_text(before, encoding="utf-8")
    done = bash(script("publish/build", "baseurl"), tmp_path, SITE="https://book.example.org")
    assert done.returncode == 0, done.stderr
    old, new = yaml.safe_load(before), yaml.safe_load(config.read_text(encoding="utf-8"))
    assert new["html"].pop("baseurl") == "https://book.example.org/"
    assert old["html"].pop("baseurl") == "https://a.github.io/b/"
    assert new == old


@needs_bash
def test_the_branch_to_launch_from_is_main_with_the_site_s_notebooks(tmp_path):
    origin, here, site = (tmp_path / name for name in ("origin", "here", "site"))
    for folder in (origin, here, site / "_sources" / "notebooks" / "gates"):
        folder.mkdir(parents=True)
    git("init", "--quiet", "--bare", at=origin)
    clone(here, only=["gates/the_cell"])
    git("remote", "add", "origin", str(origin), at=here)
    copy = site / "_sources" / "notebooks" / "gates" / "the_cell.ipynb"
    fake = f'#!/bin/sh\necho "$@" >> "{tmp_path}/calls"\ntar -cf "{tmp_path}/artifact.tar" -C "{site}" .\n'
    (tmp_path / "gh").write_text(fake)
    (tmp_path / "gh").chmod(0o755)
    for text in ("first", "second"):  # each time anew
        copy.write_text(text)
        done = bash(
            script("publish/copies", "git push"),
            here,
            GITHUB_RUN_ID="17",
            GITHUB_SHA="abc",
            RUNNER_TEMP=str(tmp_path),
            PATH=f"{tmp_path}:{os.environ['PATH']}",
        )
        assert done.returncode == 0, done.stderr
        git("reset", "--quiet", "--hard", at=here)
    assert git("for-each-ref", "--format=%(refname:short)", at=origin) == f"{address.LAUNCHED}\n"
    assert git("rev-list", "--count", address.LAUNCHED, at=origin) == "1\n"
    assert git("show", f"{address.LAUNCHED}:notebooks/gates/the_cell.ipynb", at=origin) == "second"
    main = git("ls-tree", "-r", "HEAD", at=here).splitlines()
    branch = git("ls-tree", "-r", address.LAUNCHED, at=origin).splitlines()
    kept = [line for line in main if not re.search(r"\t(notebooks|\.github)/", line)]
    assert [line for line in branch if not line.endswith("\tnotebooks/gates/the_cell.ipynb")] == kept
    assert len(branch) == len(kept) + 1 > 100
    assert set((tmp_path / "calls").read_text().splitlines()) == {
        f"run download 17 --name github-pages --dir {tmp_path}"
    }


BROKEN = "book/intro.md:3: [broken] https://example.org/gone: 404 Client Error\n"
REFUSED = (
    "book/intro.md:4: [broken] https://doi.org/10.1109/1: 403 Client Error: Forbidden for url: https://x.org\n"
)
FINE = "book/intro.md:5: [redirected with Found] https://example.org/a to https://example.org/b\n"


@needs_bash
@pytest.mark.parametrize(
    ("output", "asked", "issue", "calls"),
    [
        (FINE, "success", "", ["issue list"]),
        (FINE, "success", "7", ["issue list", "issue close 7"]),
        (FINE + REFUSED, "failure", "", ["issue list"]),
        (FINE + REFUSED + BROKEN, "failure", "", ["issue list", "label create", "issue create"]),
        (FINE + REFUSED + BROKEN, "failure", "7", ["issue list", "issue edit 7"]),
        (FINE, "failure", "7", None),  # it ended too early: nothing is known about the links
        (None, "failure", "7", None),
    ],
    ids=["fine", "fine again", "refused", "broken", "still broken", "cut off", "no output"],
)
def test_links_keeps_one_issue(tmp_path, output, asked, issue, calls):
    html, log = tmp_path / "_build" / "html", tmp_path / "calls"
    html.mkdir(parents=True)
    if output is not None:
        (html / "output.txt").write_text(output)
    (tmp_path / "gh").write_text(f'#!/bin/sh\necho "$@" >> "{log}"\n[ "$2" != list ] || echo "{issue}"\n')
    (tmp_path / "gh").chmod(0o755)
    done = bash(
        script("links/check", "gh issue"),
        tmp_path,
        ASKED=asked,
        RUNNER_TEMP=str(tmp_path),
        RUN="https://github.com/a/b/actions/runs/1",
        PATH=f"{tmp_path}:{os.environ['PATH']}",
    )
    if calls is None:
        assert done.returncode == 1
        assert "::error::" in done.stdout
        assert not log.exists()
        return
    assert done.returncode == 0, done.stderr
    said = log.read_text().splitlines()
    assert len(said) == len(calls)
    assert all(line.startswith(call) for line, call in zip(said, calls, strict=True))
    if BROKEN in output:
        body = (tmp_path / "issue.md").read_text()
        assert BROKEN in body
        assert FINE not in body
        assert REFUSED not in body
        assert "https://github.com/a/b/actions/runs/1" in body
