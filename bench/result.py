"""How a measure tells its figures."""

import json
import pathlib


def tell(result, file=None):
    """Writes `result` as JSON into `file`; prints it if there is none."""
    text = json.dumps(result, indent=1)
    if file:
        pathlib.Path(file).write_text(text + "\n")
    else:
        print(text)
