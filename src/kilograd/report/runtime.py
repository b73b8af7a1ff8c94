"""The JavaScript that draws the charts, as one text: Vega, Vega-Lite and Vega-Embed.

Bundling takes seconds, so the bundle is kept in the cache by the versions that it is made of.
"""

from __future__ import annotations

import functools
import importlib
from importlib import metadata

from kilograd.errors import InputError
from kilograd.execution.build_cache import cache_directory
from kilograd.saving import write_file

INSTALL = "pip install 'kilograd[report]'"


def require_charts() -> None:
    """Raise InputError, with the command that helps, where a library for charts is missing."""
    for module, package in (("altair", "altair"), ("vl_convert", "vl-convert-python")):
        try:
            importlib.import_module(module)
        except ImportError:
            raise InputError(
                f"reports need the package {package}, which is not installed: {INSTALL}"
            ) from None


@functools.cache
def chart_runtime() -> str:
    """The bundle, safe within a script element."""
    import vl_convert

    version = f"{metadata.version('vl-convert-python')}-{vl_convert.get_vega_version()}"
    entry = cache_directory() / f"vega-{version}.js"
    if entry.is_file():
        return entry.read_text(encoding="utf-8")
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    bundle = bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    entry.parent.mkdir(parents=True, exist_ok=True)
    write_file(entry, bundle.encode(), "the charts' runtime")
    return bundle
