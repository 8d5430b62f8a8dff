"""Rules of the code's structure: import direction, file names and lengths, resources of an event loop, SQL, states, documents, blocking calls."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib.postgres.operations import (
    AddConstraintNotValid,
    AddIndexConcurrently,
    RemoveIndexConcurrently,
    ValidateConstraint,
)
from django.core.management import call_command
from django.db import connection, migrations, models
from django.db.migrations.operations.base import Operation
from django.urls import URLPattern, URLResolver, get_resolver
from django_migration_linter import MigrationLinter

from payments.states import (
    ARROWS,
    LOOKS,
    OPEN,
    REFUND_ARROWS,
    REFUND_LOOKS,
    REFUND_TERMINAL,
    TERMINAL,
    RefundStatus,
    Status,
    sources_of,
)
from queueing.work.drain import Drain
from queueing.work.entry import DRAINS
from queueing.work.table import TABLES
from queueing.work.work import Work
from registry.data import database
from registry.data.creation import CreateModels
from registry.edge.api import api

PROJECT = Path(__file__).parents[1]
APPS = ("registry", "queueing", "payments")  # each may import those before it
COMPOSITION = {"registry/settings/__init__.py", "registry/urls.py", "registry/asgi.py"}
BLOCKING = re.compile(
    r"time\.sleep|open|input|subprocess\.\w+|requests\.\w+|urllib\.request\.\w+|socket\.create_connection|os\.system"
    r"|(\w+\.)*(read_text|write_text|read_bytes|write_bytes)|connection\.cursor|call_command|async_to_sync"
    r"|make_password|(\w+\.)*check_password|send_mail|socket\.getaddrinfo|os\.(fsync|fdatasync)|psycopg\.connect|redis\.Redis\S*"
    r"|shutil\.(copy\w*|rmtree|disk_usage|move)|Session\(\)\.\w+|gzip\.(open|compress|decompress)|zlib\.(de)?compress"
)


@cache
def texts(app: str) -> dict[str, str]:
    """The text of every Python file, migrations included."""
    return {str(f.relative_to(PROJECT)): f.read_text() for f in sorted((PROJECT / app).rglob("*.py"))}


@cache
def sources(app: str) -> dict[str, ast.Module]:
    return {path: ast.parse(text) for path, text in texts(app).items() if "/migrations/" not in path}


@cache
def nodes_of(tree: ast.AST) -> list[ast.AST]:
    """Every node, found once for all tests."""
    return list(ast.walk(tree))


@cache
def imports(tree: ast.AST) -> list[str]:
    """The modules that a module imports, anywhere in it."""
    found = []
    for node in nodes_of(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


# -- Who imports whom -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", APPS)
def test_an_app_imports_itself_and_those_before_it_only(app: str):
    above = APPS[APPS.index(app) + 1 :]

    upward = [
        f"{path} imports {name}"
        for path, tree in sources(app).items()
        if path not in COMPOSITION
        for name in imports(tree)
        if name.split(".")[0] in above
    ]

    assert upward == []


PACKAGES = {  # of each app: each may import those before it; what composes an app (urls, apps, commands) is exempt
    "registry": [
        "errors", "currencies", "models", "redaction", "telemetry", "data", "http", "edge", "servers", "tenants", "operators",
        "templatetags", "admin",
    ],
    "queueing": [
        "models", "spill", "work", "broker", "templatetags", "outbound", "jobs", "api", "console", "admin", "demo",
    ],
    "payments": [
        "states", "errors", "money", "models", "books", "processors", "routing", "intake", "settle", "api", "refunds",
        "inbound", "reconciliation", "jobs", "billing", "templatetags", "pages", "demo", "admin",
    ],
}  # fmt: skip
COMPOSES = {"settings", "urls", "asgi", "apps", "management", "migrations"}


def package_of(module: str) -> str:
    """The app and its package, or module at its top: registry.data of registry.data.live."""
    return ".".join(module.split(".")[:2])


def upward_imports(order: dict[str, list[str]], trees: dict[str, ast.Module]) -> Iterator[tuple[str, str]]:
    """Pairs of packages of one app, of which the first imports the second and stands before it."""
    places = {f"{app}.{name}": n for app, names in order.items() for n, name in enumerate(names)}
    for path, tree in trees.items():
        here = package_of(path.removesuffix(".py").replace("/", "."))
        for name in imports(tree):
            there = package_of(name)
            if here in places and there.split(".")[0] == here.split(".")[0] and places.get(there, -1) > places[here]:
                yield here, there


def test_a_package_of_an_app_imports_only_those_before_it():
    trees = {path: tree for app in APPS for path, tree in sources(app).items()}

    assert set(upward_imports(PACKAGES, trees)) == set()


@pytest.mark.parametrize("app", APPS)
def test_every_package_of_an_app_has_its_place_in_the_order(app: str):
    packages = {path.split("/")[1].removesuffix(".py") for path in sources(app)}

    assert packages - COMPOSES - {"__init__"} == set(PACKAGES[app])


def test_the_search_finds_an_import_of_a_later_package():
    order, upward = {"app": ["low", "high"]}, ast.parse("def f():\n    from app.high import thing")

    assert set(upward_imports(order, {"app/low/module.py": upward})) == {("app.low", "app.high")}
    assert list(upward_imports(order, {"app/high.py": upward})) == []


def test_no_product_module_imports_tests_or_benchmarks():
    found = [
        (p, n)
        for app in APPS
        for p, t in sources(app).items()
        for n in imports(t)
        if n.split(".")[0] in ("tests", "bench")
    ]

    assert found == []


def test_the_sandbox_imports_nothing_of_the_service():
    """It runs beside the service as Stripe would."""
    ours = {*APPS, "tests", "bench"}

    assert [(p, n) for p, t in sources("sandbox").items() for n in imports(t) if n.split(".")[0] in ours] == []


def test_no_modules_import_each_other_in_a_circle():
    """By what is imported when a module is loaded; an import inside a function comes later and closes no circle."""
    modules = {
        path[:-3].replace("/", ".").removesuffix(".__init__"): tree
        for app in APPS
        for path, tree in sources(app).items()
    }
    arrows = {
        name: {found for found in loaded_imports(tree) if found in modules and found != name}
        for name, tree in modules.items()
    }

    assert circle_in(arrows) is None


def loaded_imports(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found = list(imports(ast.Module([node], [])))
            names = {name.rpartition(".")[0] for name in found}
            # `from registry.data import live` needs registry.data.live; the package itself is empty
            yield from (name for name in found if name.count(".") or name not in names)


def circle_in(arrows: dict[str, set[str]]) -> list[str] | None:
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str] | None:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return None
        for following in sorted(arrows.get(name, ())):
            if found := walk(following, [*way, name]):
                return found
        done.add(name)
        return None

    return next((found for name in sorted(arrows) if (found := walk(name, []))), None)


def test_the_search_for_circles_finds_one():
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def test_work_is_declared_in_files_named_work_and_run_by_the_one_drain():
    def subclasses(of: type) -> set[type]:
        return {one for direct in of.__subclasses__() for one in (direct, *subclasses(direct))}

    def of_ours(of: type) -> set[str]:
        return {one.__module__ for one in subclasses(of) if one.__module__.partition(".")[0] in APPS}

    skeletons = {
        f"{path}: {node.name}"
        for app in APPS
        for path, tree in sources(app).items()
        for node in nodes_of(tree)
        if isinstance(node, ast.ClassDef) and {getattr(part, "name", "") for part in node.body} >= {"claim", "settle"}
    }

    kinds = of_ours(Work)
    assert {name.rpartition(".")[2] for name in kinds} == {"work"}
    assert len(kinds) >= 4
    assert of_ours(Drain) == {"queueing.work.inline"}
    assert skeletons == {"queueing/work/work.py: Work"}


def test_every_module_opens_with_a_sentence():
    silent = [path for app in APPS for path, tree in sources(app).items() if tree.body and not ast.get_docstring(tree)]

    assert silent == []


def test_every_module_that_talks_to_stripe_is_checked_strictly():
    """What Stripe would refuse as an unknown parameter, its library's types refuse before."""
    rules = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    strict = {name for rule in rules if rule.get("disallow_untyped_defs") for name in rule["module"]}

    modules = {
        path.removesuffix(".py").replace("/", ".")
        for app in APPS
        for path, tree in sources(app).items()
        if any(name.split(".")[0] == "stripe" for name in imports(tree))
    }

    assert modules
    assert modules <= strict


# -- Files and names ---------------------------------------------------------------------------------------------------

LONGEST_FILE = 350  # lines


@pytest.mark.parametrize("app", [*APPS, "sandbox"])
def test_no_file_is_too_long_to_read_at_once(app: str):
    lengths = {path: len(texts(app)[path].splitlines()) for path in sources(app)}

    assert len(lengths) > 10
    assert {path: n for path, n in lengths.items() if n > LONGEST_FILE} == {}


TWO_SHAPES_OF_ONE_THING = {
    "Message",  # the table, and a message of an answer to a pop
    "Trace",  # the table, and a trace of an answer
    "Processor",  # the table, and the protocol that kinds of processors implement
    "Result",  # of a send, and of a request for inline work
}


def shared_names(trees: dict[str, ast.Module]) -> set[str]:
    """Names of several public classes at the top of modules, commands aside: Django finds those by the name."""
    names = [
        node.name
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name != "Command" and not node.name.startswith("_")
    ]
    return {name for name in names if names.count(name) > 1}


def test_a_class_name_stands_for_one_thing():
    trees = {path: tree for app in APPS for path, tree in sources(app).items()}

    assert shared_names(trees) - TWO_SHAPES_OF_ONE_THING == set()


def test_the_search_finds_a_second_class_of_the_same_name():
    order = ast.parse("class Order: ...\nclass _Private: ...\nclass Command: ...")

    assert shared_names({"a.py": order, "b.py": order}) == {"Order"}
    assert shared_names({"a.py": order}) == set()


# -- Guarded actions -------------------------------------------------------------------------------------------------

GUARDED = {"registry.operators.rows.guarded", "registry.operators.confirm.Action"}


def declares_guarded_actions(path: str) -> bool:
    return path.endswith("/operate.py") or path.startswith("registry/operators/")


def test_guarded_actions_are_declared_only_in_operate_modules():
    """Pages list them; what an action expects, says and does stands beside its capability."""
    users = {path for app in APPS for path, tree in sources(app).items() if GUARDED & set(imports(tree))}

    assert len(users) > 8
    assert [path for path in sorted(users) if not declares_guarded_actions(path)] == []


# -- Nothing blocks the loop ---------------------------------------------------------------------------------------


def calls_on_the_loop(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls in async functions, without those in functions inside them that are handed to threads."""
    for function in nodes_of(tree):
        if isinstance(function, ast.AsyncFunctionDef):
            yield from _calls_in(function)


def _calls_in(node: ast.AST) -> Iterator[ast.Call]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.Call):
            yield child
        yield from _calls_in(child)


SYNC_ORM = {
    "get", "first", "last", "count", "exists", "create", "update", "delete", "save", "get_or_create", "update_or_create",
    "bulk_create", "bulk_update", "aggregate", "in_bulk", "earliest", "latest",
}  # fmt: skip


def blocks(call: ast.Call) -> bool:
    text = ast.unparse(call.func)
    if BLOCKING.fullmatch(text):
        return True
    return ".objects." in text and text.rpartition(".")[2] in SYNC_ORM


def test_no_async_function_makes_a_blocking_call():
    found = [
        f"{path}:{call.lineno} {ast.unparse(call.func)}"
        for app in APPS
        for path, tree in sources(app).items()
        for call in calls_on_the_loop(tree)
        if blocks(call)
    ]

    assert found == []


@pytest.mark.parametrize(
    "line",
    ["time.sleep(1)", "open('x')", "subprocess.run(['x'])", "requests.get('x')", "path.read_text()", "Tenant.objects.filter(a=1).first()",
     "Tenant.objects.create()", "async_to_sync(f)", "connection.cursor()", "make_password('x')", "user.check_password('x')", "send_mail('x')",
     "socket.getaddrinfo('x', 1)", "os.fsync(1)", "psycopg.connect('x')", "redis.Redis()", "redis.Redis.from_url('x')", "shutil.rmtree('x')", "gzip.compress(b'x')"],
)  # fmt: skip
def test_the_search_for_blocking_calls_finds_them(line: str):
    tree = ast.parse(f"async def f():\n    {line}\n    await asyncio.to_thread(lambda: {line})")

    assert [blocks(call) for call in calls_on_the_loop(tree)].count(True) == 1


AUDIT = PROJECT / "docs" / "sync-to-async.md"
HOPS = re.compile(
    r"(asyncio\.)?to_thread|(\w+\.)*run_in_executor|(database_)?sync_to_async|async_to_sync|(asyncio\.)?create_subprocess_\w+|ThreadPoolExecutor"
)


def hops(tree: ast.AST) -> bool:
    """Whether the module leaves the loop for a thread or a process, or a thread for a loop."""
    named = [node.func if isinstance(node, ast.Call) else node for node in nodes_of(tree)]
    return any(isinstance(one, (ast.Name, ast.Attribute)) and HOPS.fullmatch(ast.unparse(one)) for one in named)


def test_the_audit_names_every_place_that_hops_to_a_thread_or_process():
    table = AUDIT.read_text().split("## Every call")[1].split("\n## ")[0]
    named = set(re.findall(r"`((?:registry|queueing|payments)/[\w/.]+)`", table))
    hopping = {path for app in APPS for path, tree in sources(app).items() if hops(tree)}

    assert len(hopping) > 10
    assert hopping - named == set()
    assert {path for path in named if not (PROJECT / path).exists()} == set()


def test_the_snippets_of_the_migration_guide_are_python():
    snippets = re.findall(r"```python\n(.*?)```", AUDIT.read_text(), re.S)

    assert len(snippets) > 8
    for snippet in snippets:
        compile(snippet, "snippet", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)


# -- States ------------------------------------------------------------------------------------------------------------


def test_every_state_has_transitions_and_a_look_with_shape_colour_and_sentence():
    assert set(ARROWS) == set(LOOKS) == set(Status)
    for look in LOOKS.values():
        assert look.shape
        assert look.sentence.endswith(".")
    assert len({(look.shape, look.colour) for look in LOOKS.values()}) == len(LOOKS)
    assert len({look.shape for look in LOOKS.values()}) == len(LOOKS)  # colour alone tells nobody anything


def test_every_state_of_a_refund_has_transitions_and_a_look_and_only_reports_of_processors_change_closed_ones():
    assert set(REFUND_ARROWS) == set(REFUND_LOOKS) == set(RefundStatus)
    assert all(look.sentence.endswith(".") for look in REFUND_LOOKS.values())
    reached = set().union(*REFUND_ARROWS.values())
    assert reached == set(RefundStatus)
    assert {target for state in REFUND_TERMINAL for target in REFUND_ARROWS[state]} == REFUND_TERMINAL


def test_every_states_colour_stands_in_the_style_sheet():
    css = (PROJECT / "registry/static/registry/app.css").read_text()

    assert [look.colour for look in LOOKS.values() if f"--{look.colour}" not in css] == []


def test_the_admin_has_the_colours_of_the_other_pages():
    """Its style sheet comes after Django's and cannot load that of the pages."""
    files = [(PROJECT / "registry/static/registry" / name).read_text() for name in ("app.css", "admin.css")]
    pages, of_admin = ({m[1]: m[2] for m in re.finditer(r"(--\w[\w-]*): (light-dark\([^;]+)", css)} for css in files)

    names = set(pages) & set(of_admin)
    assert names >= {"--ink", "--paper", "--accent", "--red", "--green", "--amber"}
    assert {name: of_admin[name] for name in names} == {name: pages[name] for name in names}


def test_every_state_can_be_reached_and_only_final_ones_have_no_transition_but_a_replay():
    assert [status for status in Status if not sources_of(status)] == []
    assert {status for status, targets in ARROWS.items() if not targets - {Status.QUEUED}} == TERMINAL
    assert OPEN.isdisjoint(TERMINAL)


def test_every_state_is_named_in_a_test_of_payments():
    text = "".join(path.read_text() for path in (PROJECT / "tests" / "payments").glob("test_*.py"))

    assert [status for status in Status if status.value not in text and status.name not in text] == []


# -- Resources of an event loop ------------------------------------------------------------------------------------------


def kept_by_loop(tree: ast.AST) -> Iterator[str]:
    """Where a module keys something by event loops, or remembers a loop at its top, by itself."""
    loops = {
        target.id
        for node in nodes_of(tree)
        if isinstance(node, ast.Assign) and is_running_loop(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }

    def is_key(key: ast.expr) -> bool:
        parts = key.elts if isinstance(key, ast.Tuple) else [key]
        return any(is_running_loop(part) or (isinstance(part, ast.Name) and part.id in loops) for part in parts)

    for node in nodes_of(tree):
        if isinstance(node, ast.Subscript) and is_key(node.slice):
            yield ast.unparse(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args and is_key(node.args[0]):
            if node.func.attr in ("get", "pop", "setdefault"):
                yield ast.unparse(node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and "AbstractEventLoop" in ast.unparse(node):
            yield ast.unparse(node)


def is_running_loop(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("get_running_loop", "get_event_loop"))


def test_resources_of_an_event_loop_are_kept_by_per_loop_alone():
    assert [
        f"{path}: {found}"
        for app in APPS
        for path, tree in sources(app).items()
        if path != "registry/data/loop.py"
        for found in kept_by_loop(tree)
    ] == []


def test_only_the_owner_of_a_loop_closes_its_resources():
    owners = {
        "registry/asgi.py", "registry/management/base.py", "registry/servers/supervisor.py",
        "registry/data/loop.py", "queueing/work/entry.py", "queueing/jobs/processes/child.py",
    }  # fmt: skip
    calls = re.compile(r"\bend_loop\(\)")

    assert {
        path
        for app in APPS
        for path, tree in sources(app).items()
        if "end_loop" in texts(app)[path] and calls.search(ast.unparse(tree))  # comments aside
    } == owners


@pytest.mark.parametrize(
    "code",
    ["_pools: dict[asyncio.AbstractEventLoop, Pool] = {}", "pools[asyncio.get_running_loop()] = 1",
     "loop = get_running_loop()\nx = pools.get((loop, name))", "pools.pop(asyncio.get_running_loop(), None)"],
)  # fmt: skip
def test_the_search_finds_a_dictionary_keyed_by_loops(code: str):
    assert list(kept_by_loop(ast.parse(code))) != []


# -- Routes and settings -----------------------------------------------------------------------------------------------


def routes(patterns: list, prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, prefix + str(pattern.pattern))
        else:
            yield prefix + str(pattern.pattern), pattern


def test_every_public_route_of_the_api_is_in_the_openapi_document():
    about_itself = {"openapi.json", "metrics", "health", "health/live", "health/ready"}
    files_and_root = {"static/{}", ""}

    lean = {
        re.sub(r"<[^>]+>", "{}", path)
        for path, p in routes(get_resolver().url_patterns)
        if getattr(p.callback, "lean", False)
    }
    described = {re.sub(r"\{\w+\}", "{}", path).strip("/") for path in api.get_openapi_schema()["paths"]}

    assert len(lean) > 8
    assert lean - about_itself - files_and_root - described == set()
    assert described <= lean


ROUTES_IN = {"api", "pages"}  # names of files, or of packages, that declare views
DECLARES_A_VIEW = re.compile(r"api\.(get|post|put|patch|delete)|lean|endpoint|page")


def declares_a_view(function: ast.AST) -> bool:
    if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    names = [ast.unparse(one.func if isinstance(one, ast.Call) else one) for one in function.decorator_list]
    return any(DECLARES_A_VIEW.fullmatch(name) for name in names)


def test_views_are_declared_in_the_files_and_packages_named_for_them():
    """registry/edge has the routes of the service itself: health, metrics, static files."""
    found = {
        path
        for app in APPS
        for path, tree in sources(app).items()
        if any(declares_a_view(node) for node in nodes_of(tree))
        and not path.startswith("registry/edge/")
        and not ROUTES_IN & {part.removesuffix(".py") for part in path.split("/")}
    }

    assert found == set()


def test_every_route_leads_to_a_view_in_those_files():
    """Also where no decorator shows that something is a view, such as a class. Admins declare those of their pages."""
    callbacks = [p.callback for _, p in routes(get_resolver().url_patterns)]
    modules = {inspect.unwrap(getattr(callback, "view_class", callback)).__module__ for callback in callbacks}

    ours = {name for name in modules if name.partition(".")[0] in APPS}
    ours -= {
        name for name in ours if name.startswith(("registry.edge.", "registry.operators."))
    }  # the admins' own base
    assert len(ours) > 8
    assert {name for name in ours if not {*ROUTES_IN, "admin"} & set(name.split("."))} == set()


def test_paths_are_declared_in_files_named_urls_and_by_admins():
    found = {
        path
        for app in APPS
        for path, tree in sources(app).items()
        if {"django.urls.path", "django.urls.re_path"} & set(imports(tree))
        and path not in COMPOSITION
        and not path.endswith(("urls.py", "admin.py"))
        and "admin" not in path.split("/")
    }

    assert found == set()


@pytest.mark.parametrize("decorator", ["api.get('/x')", "lean", "lean(max_body=1)", "endpoint('read')", "page('GET')"])
def test_the_search_for_views_finds_them(decorator: str):
    [function] = ast.parse(f"@{decorator}\nasync def view(request): ...").body

    assert declares_a_view(function)


def test_every_test_that_a_document_names_exists():
    tests = {path.stem: path.read_text() for path in (PROJECT / "tests").rglob("*.py")}
    named = {
        name
        for folder in ("docs", "tests", "bench", "client")
        for path in (PROJECT / folder).rglob("*.md")
        for name in re.findall(r"\btest_\w+", path.read_text())
    }
    defined = {name for text in tests.values() for name in re.findall(r"^\s*(?:async )?def (test_\w+)", text, re.M)}

    assert named
    assert named - defined - set(tests) == set()


def test_every_setting_is_in_the_docs_and_nothing_else():
    read = set()
    for app in APPS:
        for path, tree in sources(app).items():
            if path.startswith(
                ("registry/settings", "registry/edge/status", "registry/servers/plan", "registry/servers/supervisor")
            ):
                read |= set(variables_read(tree))
    rows = (PROJECT / "docs" / "settings.md").read_text().splitlines()
    documented = {found[1] for row in rows if (found := re.match(r"\| `([A-Z_]+)` \| .+ \| .+ \|$", row))}

    assert read - documented == set()
    assert documented - read == set()


def variables_read(tree: ast.AST) -> Iterator[str]:
    """Names in os.environ.get("X"), whole("X"), flag("X"), networks("X"), required_url("X"), env.list("X") and "X" in os.environ."""
    for node in nodes_of(tree):
        texts: list[ast.expr] = []
        if (
            isinstance(node, ast.Call)
            and node.args
            and re.search(
                r"environ\.get$|^whole$|^flag$|^required_url$|^encryption_keys$|^networks$|^names$|^share$|^url_with$|^pairs$|^env\.",
                ast.unparse(node.func),
            )
        ):
            texts = node.args[:1]
        elif isinstance(node, ast.Compare) and "environ" in ast.unparse(node.comparators[0]):
            texts = [node.left]
        for text in texts:
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield text.value


def test_the_docs_defaults_are_the_codes():
    rows = (PROJECT / "docs" / "settings.md").read_text()
    code = (PROJECT / "registry" / "settings" / "__init__.py").read_text()

    for name, default in re.findall(r'whole\("(\w+)", ([\d_]+)[,)]', code):
        assert f"| `{name}` | `{int(default)}` |" in rows


# -- What registers itself ---------------------------------------------------------------------------------------------


def test_every_work_table_has_a_drain():
    assert set(DRAINS) == set(TABLES)


def test_every_chore_is_registered_when_the_apps_are_loaded():
    """The decorator takes effect only where somebody imports the module: no module with a chore may be left out."""
    decorated = {
        path[:-3].replace("/", ".")
        for app in APPS
        for path, tree in sources(app).items()
        for node in nodes_of(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "chore"
        and any(k.arg == "every" for k in node.keywords)
    }
    code = "import django; django.setup(); import sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout

    assert len(decorated) > 5
    assert decorated - set(loaded.split()) == set()


# -- SQL and migrations ---------------------------------------------------------------------------------------------------


def sql_files() -> list[Path]:
    """Files of named statements. Migrations run theirs whole: those in their own folder, and the functions of the broker."""
    return sorted(
        path
        for app in APPS
        for path in (PROJECT / app).rglob("*.sql")
        if "migrations" not in path.parts and "CREATE OR REPLACE FUNCTION" not in path.read_text()
    )


def test_every_sql_file_is_loaded_and_every_statement_in_it_is_used():
    unused = []
    files = {path: text for app in APPS for path, text in texts(app).items()}
    assert sql_files()
    for path in sql_files():
        readers = [p for p, text in files.items() if f'"{path.name}"' in text]
        assert readers, f"{path} is loaded by nobody"
        lenders = [f"from {reader.removesuffix('.py').replace('/', '.')} import" for reader in readers]
        borrowers = [p for p, text in files.items() if any(lender in text for lender in lenders)]
        text = "".join(files[reader] for reader in {*readers, *borrowers})
        unused += [f"{path.name}: {name}" for name in database.statements(path) if f'"{name}"' not in text]

    assert unused == []


def test_no_sql_stands_before_the_first_name_in_its_file():
    """What stands before the first `-- name:` would never run."""
    stray = [
        path.name for path in sql_files() if re.sub(r"--[^\n]*", "", path.read_text().partition("-- name: ")[0]).strip()
    ]

    assert stray == []


STATEMENT = re.compile(
    r"\b(SELECT|INSERT INTO|UPDATE \w+( \w+)? SET|DELETE FROM|MERGE INTO|TRUNCATE|JOIN \w+|FOR UPDATE|WITH \w+ AS( MATERIALIZED)?)\b"
)
PYTHON_WITH_SQL = {
    "registry/servers/postgres.py",  # makes the database of an embedded server, before Django runs
}


def sql_in(tree: ast.Module) -> Iterator[str]:
    """Statements in strings, docstrings aside, and calls of the ORM that take SQL.

    Commands that read and write no rows (SET, SHOW, LISTEN, NOTIFY, CREATE DATABASE) may stand where they are called.
    """
    documented = {
        id(node.body[0].value)
        for node in nodes_of(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and ast.get_docstring(node)
    }
    for node in nodes_of(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            if STATEMENT.search(node.value):
                yield f"{node.lineno} {node.value.strip()[:40]}"
        elif isinstance(node, ast.Call) and re.search(r"\bRawSQL$|\.extra$|objects\.raw$", ast.unparse(node.func)):
            yield f"{node.lineno} {ast.unparse(node.func)}"


def test_python_files_hold_no_sql():
    """Statements stand in sql/ beside the module that runs them (docs/decisions/026)."""
    found = [
        f"{path}:{line}"
        for app in APPS
        for path, tree in sources(app).items()
        if path not in PYTHON_WITH_SQL
        for line in sql_in(tree)
    ]

    assert found == []


@pytest.mark.parametrize(
    ("line", "sql"),
    [
        ("f(f'SELECT {x} FROM t')", True), ("X = 'INSERT INTO t VALUES (1)'", True), ("X = 'UPDATE t AS SET'", True),
        ("X = 'WITH a AS MATERIALIZED (1)'", True), ("f(f'{q} FOR UPDATE')", True), ("J = 'LEFT JOIN t ON true'", True), ("Payment.objects.extra(where=['1'])", True), ("RawSQL('1', ())", True),
        ("conn.execute(f'NOTIFY {queue}')", False), ("'Select a plan'", False), ("conn.execute('SET LOCAL x = 0')", False),
    ],
)  # fmt: skip
def test_the_search_for_sql_finds_it(line: str, sql: bool):
    assert bool(list(sql_in(ast.parse(f'"""SELECT in a docstring."""\n{line}')))) is sql


def test_the_models_have_their_migrations():
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def lasting_lock(operation: Operation) -> bool:
    """Whether it keeps others from an existing table for longer the more rows that has."""
    if isinstance(
        operation, (AddIndexConcurrently, RemoveIndexConcurrently, AddConstraintNotValid, ValidateConstraint)
    ):
        return False
    if isinstance(operation, migrations.AddField):
        field = operation.field
        return (not field.null and not field.has_db_default()) or field.unique or field.db_index
    return isinstance(
        operation,
        (migrations.AddIndex, migrations.AlterField, migrations.AddConstraint, migrations.AlterUniqueTogether),
    )


def test_the_migration_linter_finds_nothing():
    linter = MigrationLinter(
        str(PROJECT),
        no_cache=True,
        no_output=True,
        include_apps=list(APPS),
        warnings_as_errors_tests=["CREATE_INDEX"],
    )

    linter.lint_all_migrations()

    assert linter.nb_total >= len(APPS)
    assert (linter.nb_erroneous, linter.nb_warnings) == (0, 0)


def test_migrations_keep_no_existing_table_locked_for_long():
    found = []
    for app in APPS:
        for path in sorted((PROJECT / app / "migrations").glob("0*.py")):
            operations = importlib.import_module(f"{app}.migrations.{path.stem}").Migration.operations
            new = {created.name for o in operations if isinstance(o, CreateModels) for created in o.operations}
            found += [
                f"{app}.{path.stem}: {o.describe()}"
                for o in operations
                if lasting_lock(o) and getattr(o, "model_name", "") not in new
            ]

    assert found == []


def test_migrations_create_their_tables_in_one_step():
    """A first start waits for them."""
    files = [(app, path.stem) for app in APPS for path in (PROJECT / app / "migrations").glob("0*.py")]

    found = [importlib.import_module(f"{app}.migrations.{name}").Migration.operations for app, name in files]

    assert not [one for operations in found for one in operations if isinstance(one, migrations.CreateModel)]


@pytest.mark.parametrize(
    ("operation", "locks"),
    [
        (migrations.AddIndex("payment", models.Index(fields=["code"], name="i")), True),
        (AddIndexConcurrently("payment", models.Index(fields=["code"], name="i")), False),
        (migrations.AddField("payment", "f", models.IntegerField(null=True)), False),
        (migrations.AddField("payment", "f", models.IntegerField(db_default=0)), False),
        (migrations.AddField("payment", "f", models.IntegerField(default=0)), True),
        (migrations.AlterField("payment", "f", models.TextField()), True),
    ],
    ids=str,
)
def test_the_search_for_lasting_locks_finds_them(operation: Operation, locks: bool):
    assert lasting_lock(operation) is locks


def test_every_table_of_payments_leads_with_its_tenant_in_its_primary_key():
    """So that tables can be distributed by tenant (architecture, decision 10)."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT c.relname, a.attname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
            WHERE i.indisprimary AND c.relname LIKE 'payments\\_%%'"""
        )
        first = dict(cursor.fetchall())
    connection.close()
    hot = [
        m._meta.db_table
        for m in apps.get_app_config("payments").get_models()
        if any(f.name == "tenant" for f in m._meta.fields)
    ]

    assert {table: first[table] for table in hot if first[table] != "tenant_id"} == {
        "payments_processor": "id",  # a handful per tenant, named by every row of the hot tables
        "payments_deadletter": "id",  # an operator's list
    }
