"""The Python that runs the service, and how it was built."""

import platform
import sysconfig

OPTIMISED = ("--enable-optimizations", "-fprofile-use")  # of configure; of the compiler
SETTINGS = ("CONFIG_ARGS", "PY_CORE_CFLAGS", "PY_CFLAGS_NODIST")


def is_optimised() -> bool:
    """Whether its build settings name profile-guided optimisation. Debian's packages have it, but their settings do not say so."""
    said = " ".join(str(sysconfig.get_config_var(name) or "") for name in SETTINGS)
    return any(word in said for word in OPTIMISED)


def describe() -> str:
    """Such as "Python 3.13.0, built with optimisations"."""
    built = "built with optimisations" if is_optimised() else "its build settings name no optimisation by profile (PGO)"
    return f"Python {platform.python_version()}, {built}"
