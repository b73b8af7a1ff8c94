"""What can go wrong: the user's input (`UserError` and its kinds) or this compiler
(`CompilerBug`).
"""


class UserError(Exception):
    """Something in the user's input; the message says what, where, the numbers and a way out."""


class UnsupportedError(UserError):
    """The model uses something that kilograd cannot compile."""


class InfeasibleError(UserError):
    """The program does not fit the device or the budget."""


class InputError(UserError):
    """A file, option or array is not what it has to be."""


class NonFiniteError(UserError):
    """NaN or infinity arose in a training step; the weights are those of before the step."""


class StorageError(UserError):
    """Secondary storage failed; the weights are those of before the call."""


class DeviceFault(UserError):
    """The program did on the (emulated) device what would crash or corrupt a real one."""


class CompilerBug(Exception):
    """An invariant of this compiler does not hold; the message shows the program around the
    fault.
    """
