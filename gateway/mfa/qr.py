"""A URI as a picture for a phone's camera."""

from __future__ import annotations

from io import BytesIO


def svg(uri: str) -> str:
    """A QR code (error correction M, quiet zone included) as an inline SVG element without script or style."""
    import segno  # only enrolment draws

    out = BytesIO()
    segno.make(uri, error="m", micro=False).save(
        out, kind="svg", xmldecl=False, svgns=True, scale=4, border=4, omitsize=True, light="#fff", nl=False
    )
    return out.getvalue().decode()
