"""A command whose help describes its arguments."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

from typer.core import TyperArgument, TyperCommand


class DescribedCommand(TyperCommand):
    """A command whose help describes its arguments, too: click 8.5 forgets what typer 0.20 tells it about them."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        hints = get_type_hints(inspect.unwrap(self.callback), include_extras=True)
        for parameter in self.params:
            if isinstance(parameter, TyperArgument):
                parameter.help = hints[parameter.name].__metadata__[0].help
