"""``lightwork completion``: the script that lets a shell complete commands, options and names of works."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["SHELLS", "completion"]

SHELLS = ("bash", "zsh", "fish")


@click.command
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete `lightwork`.

    \b
    bash:  eval "$(lightwork completion bash)"                          in ~/.bashrc
    zsh:   eval "$(lightwork completion zsh)"                           in ~/.zshrc
    fish:  lightwork completion fish > ~/.config/fish/completions/lightwork.fish
    """  # noqa: D301  # it is the character that keeps click from filling these lines
    kind = get_completion_class(shell)
    assert kind is not None
    program = ctx.find_root()
    click.echo(kind(program.command, {}, "lightwork", "_LIGHTWORK_COMPLETE").source())
