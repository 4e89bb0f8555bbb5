"""The command `syncws completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete this command's options.

    \b
    bash, in ~/.bashrc:    eval "$(syncws completion bash)"
    zsh, in ~/.zshrc:      eval "$(syncws completion zsh)"
    fish, once:            syncws completion fish > ~/.config/fish/completions/syncws.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = ctx.find_root()
    click.echo(kind(root.command, {}, "syncws", "_SYNCWS_COMPLETE").source())
