# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What goes into a message: sizes for people, URLs without their secrets."""

from __future__ import annotations

import urllib.parse


def human_bytes(count: int) -> str:
    """4920000000 → '4.92 GB'; decimal units, as model pages and shops print them."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count} bytes"


def exact_bytes(count: int) -> str:
    """4920000000 → '4.92 GB (4920000000 bytes)', where every byte counts."""
    return f"{human_bytes(count)} ({count} bytes)" if count >= 10**3 else human_bytes(count)


def display_url(url: str) -> str:
    """The URL without user, password and query: those may be secrets (signed links). What is no URL loses as much."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return url.partition("?")[0].rpartition("@")[2]
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def shorten(text: str, length: int) -> str:
    """The text on one line, of at most ``length`` characters."""
    words = " ".join(text.split())
    return words if len(words) <= length else words[: length - 3] + "..."
