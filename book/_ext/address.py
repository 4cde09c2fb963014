"""What only a published book has: a site map, cards that other sites show for a link to it, copies to launch.

They need the address of the built book, ``html.baseurl`` in `_config.yml`. `make repo` writes it.
"""

from __future__ import annotations

from sphinx.application import Sphinx

LAUNCHED = "published"
"""The branch with plain copies for notebooks (`copies.py`), which `.github/workflows/publish.yml` pushes."""


def launch_copies(app: Sphinx) -> None:
    """Have Colab and Binder open the plain copies; for the other buttons the theme has noted the branch by now."""
    app.config.html_theme_options["repository_branch"] = LAUNCHED


def setup(app: Sphinx) -> dict[str, bool]:
    """Load the two extensions, and turn the launch buttons, where there is an address."""
    if app.config.html_baseurl:
        app.setup_extension("sphinx_sitemap")
        app.config.sitemap_url_scheme = "{link}"  # no language and version in the path
        app.setup_extension("sphinxext.opengraph")
        app.config.ogp_site_url = app.config.html_baseurl
        app.config.ogp_site_name = app.config.html_title
        app.config.ogp_social_cards = {"enable": False}  # made with a font from the network
        app.connect("builder-inited", launch_copies, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
