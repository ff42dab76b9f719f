"""JSON that says of itself whether a byte was changed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import workdir

HASH = "sha256"


def sealed(content: Mapping[str, Any]) -> bytes:
    """The one way to write this content, with the hash of it at the end."""
    plain = workdir.plain(content)
    return _text({**plain, HASH: _digest(plain)})


def unsealed(path: Path) -> dict[str, Any]:
    """What `sealed` wrote, byte for byte.

    Raises:
      FileNotFoundError: it isn't there.
      ValueError: a byte differs.
    """
    raw = Path(path).read_bytes()
    try:
        content = json.loads(raw.decode())
        given = content.pop(HASH)
        # Whitespace and the order of the fields carry no meaning, and yet are bytes that someone changed.
        if given != _digest(content) or raw != _text({**content, HASH: given}):
            raise ValueError("its sha256 differs")
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not what was written: it was truncated or changed ({error})") from None
    return content


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()).hexdigest()


def _text(content: Any) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
