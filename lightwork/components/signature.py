"""The signature of ``run``: arguments in, checked and encoded once; a hash that tells calls apart; the result out.

Arguments travel as one msgpack array, one item for each parameter in the order of the signature, defaults filled
in; ``*args`` is an array in it and ``**kwargs`` a map. The array is decoded as a fixed tuple of the annotated types
before it is sent, which refuses in the flow what the worker could not take, and makes ``1`` and ``1.0`` one
argument where the annotation says float. Dicts keep their order on the wire; only the hash is taken from a sorted
encoding.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import msgspec

from lightwork.errors import ArgumentsError, ComponentError

__all__ = ["RunSignature", "describe_parameters"]

_encoder = msgspec.msgpack.Encoder()
_sorting_encoder = msgspec.msgpack.Encoder(order="deterministic")
_encode = _encoder.encode
_decode_plain = msgspec.msgpack.Decoder().decode

_REQUIRED = object()
_OWN_DEFAULT = msgspec.msgpack.Ext(100, b"")
"""Stands on the wire for a default that cannot be encoded; the worker puts its own in."""

_SCALARS = frozenset({int, float, str, bool, bytes, type(None)})
_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)
_PLACE = re.compile(r"^(?P<what>.*) - at `\$\[(?P<index>\d+)\](?P<rest>.*)`$", re.DOTALL)

_known: WeakKeyDictionary[Callable[..., Any], dict[str, RunSignature]] = WeakKeyDictionary()


class _Parameter(typing.NamedTuple):
    """One parameter of ``run``, without ``self``."""

    name: str
    kind: inspect._ParameterKind
    type: Any
    default: Any
    own_default: Any

    @property
    def by_keyword(self) -> bool:
        return self.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

    @property
    def by_position(self) -> bool:
        return self.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class RunSignature:
    """What one ``run`` takes and gives. Made with `of`; immutable, and free of the work and its state.

    Attributes:
        name: ``Class.run``, as messages show it.
        is_async: Whether ``run`` is a coroutine function.
    """

    def __init__(self, run: Callable[..., Any], owner: str) -> None:
        self.name: str = f"{owner}.run"
        if inspect.isgeneratorfunction(run) or inspect.isasyncgenfunction(run):
            raise ComponentError(f"{self.name} is a generator, whose items nobody would take: return a list instead")
        self.is_async: bool = inspect.iscoroutinefunction(run)
        self._signature, hints = _resolved(run, self.name)
        self._parameters = [_parameter(given, hints[name]) for name, given in self._signature.parameters.items()]
        self._by_position = sum(parameter.by_position for parameter in self._parameters)
        kinds = {parameter.kind for parameter in self._parameters}
        self._fillable = not kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
        self._table = [(given.name, given.default, given.by_keyword) for given in self._parameters]
        # Whether the values are the arguments of a call as they are, none given by name and none put in by the worker.
        self._is_plain = self._fillable and all(
            given.by_position and given.default is not _OWN_DEFAULT for given in self._parameters
        )
        array = types.GenericAlias(tuple, tuple(parameter.type for parameter in self._parameters))
        self._decode = msgspec.msgpack.Decoder(array).decode
        self._decode_result = msgspec.msgpack.Decoder(hints["return"]).decode

    @functools.cached_property
    def text(self) -> str:
        """The signature without ``self``, ``(epochs: int, lr: float = 0.1) -> float``."""
        return _shown(self._signature)  # only messages and pages show it: no worker pays for it when it starts

    @classmethod
    def of(cls, run: Callable[..., Any], owner: str) -> RunSignature:
        """The signature of a plain function whose first parameter is ``self``. Worked out once for each function.

        Args:
            run: The function.
            owner: Name of the class, for messages.

        Raises:
            ComponentError: `run` is a generator, or does not take ``self``.
        """
        by_owner = _known.get(run)
        if by_owner is None:
            by_owner = _known[run] = {}
        found = by_owner.get(owner)
        if found is None:
            found = by_owner[owner] = cls(run, owner)
        return found

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, str]:
        """Fit arguments to the signature: the bytes to send, and the hash of the call.

        Calls are equal, and have one hash, if they give every parameter the same value after conversion to its
        annotation: by position or keyword, written out or by default, and whatever the order of a dict's keys. The
        arguments are copied by this; a later change to them changes nothing.

        Raises:
            ArgumentsError: They do not fit the signature or the annotations, or one cannot be encoded.
        """
        values = self._fill(args, kwargs)
        try:
            first = _encode(values)
            typed = self._decode(first)
            data = _encode(typed)
            for value in values:
                if type(value) not in _SCALARS:
                    canonical = _encode_sorted(self._decode(_encode_sorted(values)))
                    return data, blake2b(canonical, digest_size=16).hexdigest()
        except msgspec.ValidationError as error:
            self._refuse(error, values)
        except _UNENCODABLE as error:
            self._refuse_unencodable(error, values)
        return data, blake2b(data, digest_size=16).hexdigest()

    def unbind(self, data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments to call ``run`` with, after ``self``, in the annotated types.

        Raises:
            ArgumentsError: The data do not come from `bind` of the same signature.
        """
        try:
            values = self._decode(data)
        except msgspec.DecodeError as error:
            raise ArgumentsError(f"{self.name}{self.text} cannot take the arguments it was sent: {error}") from None
        if self._is_plain:
            return values, {}
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for parameter, value in zip(self._parameters, values, strict=True):
            if parameter.default is _OWN_DEFAULT and value == _OWN_DEFAULT:
                value = parameter.own_default
            if parameter.by_position:
                args.append(value)
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                args += value
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                kwargs |= value
            else:
                kwargs[parameter.name] = value
        return tuple(args), kwargs

    def result(self, raw: bytes | msgspec.Raw) -> Any:
        """The value that ``run`` returned, in the type of its return annotation if it fits that, else plain.

        Plain is what msgpack has: None, bool, int, float, str, bytes, list, dict, datetime.

        Raises:
            msgspec.DecodeError: `raw` is no msgpack.
        """
        try:
            return self._decode_result(raw)
        except msgspec.ValidationError:
            return _decode_plain(raw)

    def named(self, data: bytes) -> dict[str, Any]:
        """The arguments in `data`, which comes from `bind`, by name and as plain values, for people."""
        values = _decode_plain(data)
        return {
            parameter.name: parameter.own_default if value == _OWN_DEFAULT else value
            for parameter, value in zip(self._parameters, values, strict=False)
        }

    @property
    def described(self) -> list[tuple[str, str, bool, Any]]:
        """Each parameter's name (with its asterisks), annotation as text, whether it must be given, its default."""
        return describe_parameters(self._signature)

    def _fill(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """One value for each parameter. `inspect` is asked only where there is no simple way, or an error to word."""
        given = len(args)
        if not self._fillable or given > self._by_position:
            return self._fill_slowly(args, kwargs)
        values = list(args)
        if given == len(self._table) and not kwargs:
            return values
        taken = 0
        for name, default, by_keyword in self._table[given:]:
            if by_keyword and name in kwargs:
                values.append(kwargs[name])
                taken += 1
            elif default is not _REQUIRED:
                values.append(default)
            else:
                return self._fill_slowly(args, kwargs)
        return values if taken == len(kwargs) else self._fill_slowly(args, kwargs)

    def _fill_slowly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        try:
            bound = self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise ArgumentsError(f"{self.name}: {error}; the signature is run{self.text}") from None
        return [bound.get(parameter.name, parameter.default) for parameter in self._parameters]

    def _refuse(self, error: msgspec.ValidationError, values: Sequence[Any]) -> NoReturn:
        """Raise what the decoder found, by the name of the argument and not by its place in the array."""
        found = _PLACE.match(str(error))
        if found is None:
            raise ArgumentsError(f"{self.name}: {error}; the signature is run{self.text}") from None
        index = int(found["index"])
        what = found["what"]
        place = f" at {found['rest']}" if found["rest"] else f", the value {_bounded(values[index])}"
        raise ArgumentsError(
            f"{self.name}: argument {self._parameters[index].name!r}: {what[:1].lower()}{what[1:]}{place}; "
            f"the signature is run{self.text}"
        ) from None

    def _refuse_unencodable(self, error: Exception, values: Sequence[Any]) -> NoReturn:
        for parameter, value in zip(self._parameters, values, strict=True):
            why = _why_unencodable(value)
            if why is not None:
                raise ArgumentsError(
                    f"{self.name}: argument {parameter.name!r} of type {type(value).__name__} cannot be sent to "
                    f"the work: {why}"
                ) from error
        raise ArgumentsError(f"{self.name}: the arguments cannot be sent to the work: {error}") from error


def describe_parameters(signature: inspect.Signature) -> list[tuple[str, str, bool, Any]]:
    """What `RunSignature.described` gives, of any signature."""
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    described = []
    for given in signature.parameters.values():
        star = stars.get(given.kind, "")
        has_default = given.default is not inspect.Parameter.empty
        annotation = "" if given.annotation is inspect.Parameter.empty else inspect.formatannotation(given.annotation)
        default = given.default if has_default else None
        described.append((star + given.name, annotation, not has_default and not star, default))
    return described


# --- encoding ------------------------------------------------------------------------------------


def _encode_sorted(value: Any) -> bytes:
    """Encode a value so that equal dicts and sets give equal bytes."""
    try:
        return _sorting_encoder.encode(value)
    except TypeError:
        # msgspec sorts neither dicts whose keys are not all strings nor sets of mixed types.
        return _encode(_ordered(value))


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value, key=lambda key: _encode(_ordered(key)))}
    if isinstance(value, set | frozenset):
        return sorted(map(_ordered, value), key=_encode)
    if isinstance(value, tuple):
        return tuple(_ordered(item) for item in value)  # stays hashable: it may be a key
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    return value


def _why_unencodable(value: Any) -> str | None:
    try:
        _encode(value)
    except OverflowError:
        return "it holds an integer beyond 64 bits"
    except RecursionError:
        return "it is nested too deeply, or holds itself"
    except _UNENCODABLE as error:
        hint = "; a NumPy scalar has .item(), an array .tolist()" if "type numpy." in str(error) else ""
        return f"{error}{hint}"
    return None


def _bounded(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# --- annotations ---------------------------------------------------------------------------------


def _resolved(run: Callable[..., Any], name: str) -> tuple[inspect.Signature, dict[str, Any]]:
    """The signature without ``self``, and a type that msgspec can decode for each parameter and ``return``."""
    signature = inspect.signature(run)
    parameters = list(signature.parameters.values())
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        raise ComponentError(f"{name} does not take self: write it as a method, `def run(self, ...)`")
    scope = getattr(inspect.unwrap(run), "__globals__", {})
    written = {given.name: _evaluated(given.annotation, scope) for given in parameters[1:]}
    returned = _evaluated(signature.return_annotation, scope)
    shown = [given.replace(annotation=_readable(written[given.name])) for given in parameters[1:]]
    hints = {key: _decodable(annotation) for key, annotation in {**written, "return": returned}.items()}
    return signature.replace(parameters=shown, return_annotation=_readable(returned)), hints


def _readable(annotation: Any) -> Any:
    return None if annotation is type(None) else annotation


def _evaluated(annotation: Any, scope: dict[str, Any]) -> Any:
    """The annotation with its strings resolved; as it was written where they cannot be."""
    if annotation is inspect.Parameter.empty:
        return annotation
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, globalns=scope, include_extras=True)["it"]
    except Exception:  # evaluating a user's string may raise anything; an annotation is never a reason to fail
        return annotation


def _decodable(annotation: Any) -> Any:
    """The annotation if msgspec can decode it without help, else Any."""
    if annotation is inspect.Parameter.empty:
        return Any
    import msgspec.inspect

    try:
        custom = _is_custom(msgspec.inspect.type_info(annotation))
    except Exception:  # type_info raises whatever the user's types raise; an annotation is never a reason to fail
        return Any
    return Any if custom else annotation


def _is_custom(info: Any) -> bool:
    """Whether a type, or one inside its containers, is foreign to msgspec. Fields of classes are not looked at."""
    import msgspec.inspect as shapes

    match info:
        case shapes.CustomType():
            return True
        case shapes.UnionType(types=inner) | shapes.TupleType(item_types=inner):
            return any(map(_is_custom, inner))
        case shapes.DictType(key_type=key, value_type=value):
            return _is_custom(key) or _is_custom(value)
        case shapes.CollectionType(item_type=item):
            return _is_custom(item)
        case shapes.Metadata(type=inner):
            return _is_custom(inner)
    return False


def _parameter(given: inspect.Parameter, hint: Any) -> _Parameter:
    if given.kind is inspect.Parameter.VAR_POSITIONAL:
        return _Parameter(given.name, given.kind, types.GenericAlias(tuple, (hint, ...)), (), None)
    if given.kind is inspect.Parameter.VAR_KEYWORD:
        return _Parameter(given.name, given.kind, dict[str, hint], {}, None)
    if given.default is inspect.Parameter.empty:
        return _Parameter(given.name, given.kind, hint, _REQUIRED, None)
    if _why_unencodable(given.default) is not None:
        return _Parameter(given.name, given.kind, Any, _OWN_DEFAULT, given.default)
    try:
        msgspec.msgpack.decode(_encode(given.default), type=hint)
    except msgspec.ValidationError:
        # `x: int = None` means an optional int; another default that does not fit makes the annotation a lie.
        hint = typing.Optional[hint] if given.default is None else Any  # noqa: UP045 -- a value, not an annotation
    return _Parameter(given.name, given.kind, hint, given.default, None)


def _shown(signature: inspect.Signature) -> str:
    text = str(signature)
    return text if len(text) <= 400 else f"{text[:397]}..."
