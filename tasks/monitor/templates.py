"""Our page's template beside Flower's, and a way to it in Flower's navigation."""

from __future__ import annotations

from pathlib import Path

from tornado.template import Loader, Template

FOLDER = Path(__file__).parent / "pages_html"
LAST_TAB = "{{ reverse_url('broker') }}"
TAB = """
        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'migrations' %} active{% end %}"
            href="{{ reverse_url('migrations') }}">Migrations</a>
        </li>
"""


class OurLoader(Loader):
    """Flower's templates, with one more entry in the navigation; where that has changed, it is left as it is."""

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        """Our own pages stand in a folder of their own, and extend Flower's."""
        ours = FOLDER / name
        return str(ours) if ours.is_file() else str(super().resolve_path(name, parent_path))

    def _create_template(self, name: str) -> Template:
        if name != "navbar.html":
            return super()._create_template(name)
        text = (Path(self.root) / name).read_text(encoding="utf-8")
        return Template(with_tab(text), name=name, loader=self)


def with_tab(navbar: str) -> str:
    """The navigation with our tab after the last of Flower's."""
    head, found, tail = navbar.partition(LAST_TAB)
    before, end, after = tail.partition("</li>")
    return f"{head}{found}{before}{end}{TAB}{after}" if found and end else navbar
