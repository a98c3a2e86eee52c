"""One place draws and writes every figure: in one style, and naming the picture that is missing."""

from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from mimetic.analysis.style import color, line_style, new_figure, save_figure
from mimetic.errors import UserError

STRANGE = {"text.usetex": True, "font.family": ["Nowhere"], "figure.dpi": 7.0, "savefig.bbox": "tight"}


def drawn() -> Figure:
    """Return a figure with text."""
    figure = new_figure(1.0, 1.0, title="a_b $x$")
    figure.subplots().set_title("%")
    return figure


def test_the_settings_of_the_user_change_no_picture(tmp_path: Path) -> None:
    """Neither TeX nor a missing font nor a size is taken from a matplotlibrc, and none of it is changed."""
    save_figure(tmp_path / "plain.png", drawn, dpi=20)
    with mpl.rc_context(STRANGE):
        before = dict(mpl.rcParams)
        assert save_figure(tmp_path / "strange.png", drawn, dpi=20)
        assert dict(mpl.rcParams) == before

    assert (tmp_path / "strange.png").read_bytes() == (tmp_path / "plain.png").read_bytes()


def test_what_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    """Whatever a backend or a font raises; nothing is left behind."""

    def broken() -> Figure:
        raise RuntimeError("latex was not able to\nprocess")

    with pytest.raises(UserError, match="latex was not able to process") as refused:
        save_figure(tmp_path / "broken.png", broken, dpi=20)
    assert refused.value.code == "MIM-N001"
    assert str(tmp_path / "broken.png") in str(refused.value)
    assert not save_figure(tmp_path / "nothing.png", lambda: None, dpi=20)
    assert not list(tmp_path.iterdir())


def test_no_two_arms_share_a_color() -> None:
    """Of any number: what follows the palette differs by hue, lightness and line style."""
    assert len({color(index) for index in range(200)}) == 200
    assert line_style(0) != line_style(8)
