"""The templates of the pages, filled so that nothing in a run becomes markup."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lorascope.report.figure import VEGA_LITE_VERSION
from lorascope.report.formatting import shortened


def rendered(template: str, **values: object) -> str:
    """A template filled with values, all of them escaped but `Markup`.

    Raises:
        jinja2.UndefinedError: the template names a value that is not given.
    """
    environment = Environment(
        loader=PackageLoader("lorascope.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shortened"] = shortened
    return environment.get_template(template).render(**values)


def asset(*names: str) -> Markup:
    """Styles or scripts that come with the package, one after the other."""
    folder = files("lorascope.report") / "templates"
    return Markup("".join((folder / name).read_text(encoding="utf-8") for name in names))


@cache
def vega_script() -> Markup:
    """Vega, Vega-Lite and vega-embed as one script that leaves only `vegaEmbed` behind."""
    bundle = vl_convert.javascript_bundle(
        "window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE_VERSION
    )
    # Nothing in the bundle may end the script element that holds it.
    safe = bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return Markup("(() => {" + safe + "})();")
