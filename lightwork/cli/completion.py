"""``lightwork completion``: prints the script with which a shell completes commands, options and names of works."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["SHELLS", "completion"]

SHELLS = ("bash", "zsh", "fish")


@click.command
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash:  eval "$(lightwork completion bash)"                          in ~/.bashrc
    zsh:   eval "$(lightwork completion zsh)"                           in ~/.zshrc
    fish:  lightwork completion fish > ~/.config/fish/completions/lightwork.fish
    """  # noqa: D301  # with this character click does not rewrap the lines
    kind = get_completion_class(shell)
    assert kind is not None
    program = ctx.find_root()
    click.echo(kind(program.command, {}, "lightwork", "_LIGHTWORK_COMPLETE").source())
