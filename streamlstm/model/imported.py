"""What an importer hands over."""

from dataclasses import dataclass, field

from streamlstm.model.parameters import Parameters


@dataclass(frozen=True)
class Imported:
    """Weights of a foreign file and what the file says beside them.

    fixed_window: T when the file fixes the length of its input sequence, else None.
    carried: the file itself carries state from call to call (Keras stateful=True, an exported single step).
    origin: framework, format and such, for people. notes: what was assumed, folded or left out, one sentence each.
    """

    parameters: Parameters
    fixed_window: int | None = None
    carried: bool = False
    origin: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
