"""The signature of ``run``: it checks and encodes the arguments once, hashes the call, and decodes the result.

Arguments travel as one msgpack array, with one item for each parameter in the order of the signature. Defaults are
filled in. ``*args`` is an array in it and ``**kwargs`` a map. Before the array is sent, it is decoded as a fixed tuple
of the annotated types: the flow refuses what the worker could not accept, and ``1`` and ``1.0`` are one argument where
the annotation is float. Dicts keep their order on the wire; only the hash uses a sorted encoding.
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
"""Marker on the wire for a default that cannot be encoded. The worker uses its own default."""

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
    """The parameters and the return type of one ``run``. Made with `of`. Immutable; refers to no work and no state.

    Attributes:
        name: ``Class.run``, for messages.
        is_async: Whether ``run`` is a coroutine function.
    """

    def __init__(self, run: Callable[..., Any], owner: str) -> None:
        self.name: str = f"{owner}.run"
        if inspect.isgeneratorfunction(run) or inspect.isasyncgenfunction(run):
            raise ComponentError(f"{self.name} is a generator, and nothing would read its items: return a list instead")
        self.is_async: bool = inspect.iscoroutinefunction(run)
        self._signature, hints = _resolved(run, self.name)
        self._parameters = [_parameter(given, hints[name]) for name, given in self._signature.parameters.items()]
        self._by_position = sum(parameter.by_position for parameter in self._parameters)
        kinds = {parameter.kind for parameter in self._parameters}
        self._fillable = not kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
        self._table = [(given.name, given.default, given.by_keyword) for given in self._parameters]
        # Whether the values are the positional arguments of a call: none by keyword, none filled in by the worker.
        self._is_plain = self._fillable and all(
            given.by_position and given.default is not _OWN_DEFAULT for given in self._parameters
        )
        array = types.GenericAlias(tuple, tuple(parameter.type for parameter in self._parameters))
        self._decode = msgspec.msgpack.Decoder(array).decode
        self._decode_result = msgspec.msgpack.Decoder(hints["return"]).decode

    @functools.cached_property
    def text(self) -> str:
        """The signature without ``self``, ``(epochs: int, lr: float = 0.1) -> float``."""
        return _shown(self._signature)  # made on first use: only messages and pages show it

    @classmethod
    def of(cls, run: Callable[..., Any], owner: str) -> RunSignature:
        """Return the signature of a plain function whose first parameter is ``self``. Made once for each function.

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
        """Fit arguments to the signature. Return the bytes to send, and the hash of the call.

        Calls are equal, and have one hash, if every parameter has the same value after conversion to its annotation. It
        does not matter whether a value is given by position, by keyword or by default, nor in which order a dict has
        its keys. The arguments are copied: a later change to them has no effect.

        Raises:
            ArgumentsError: The arguments do not fit the signature or the annotations, or one cannot be encoded.
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
        """Return the arguments for ``run``, without ``self``, in the annotated types.

        Raises:
            ArgumentsError: `data` does not come from `bind` of the same signature.
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
        """Return the value that ``run`` returned: in the type of the return annotation if it fits, otherwise plain.

        Plain types are those of msgpack: None, bool, int, float, str, bytes, list, dict, datetime.

        Raises:
            msgspec.DecodeError: `raw` is not valid msgpack.
        """
        try:
            return self._decode_result(raw)
        except msgspec.ValidationError:
            return _decode_plain(raw)

    def named(self, data: bytes) -> dict[str, Any]:
        """Return the arguments in `data`, which comes from `bind`, by name and as plain values, for people."""
        values = _decode_plain(data)
        return {
            parameter.name: parameter.own_default if value == _OWN_DEFAULT else value
            for parameter, value in zip(self._parameters, values, strict=False)
        }

    @property
    def described(self) -> list[tuple[str, str, bool, Any]]:
        """For each parameter: name (with its asterisks), annotation as text, whether it is required, default."""
        return describe_parameters(self._signature)

    def _fill(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """Return one value for each parameter. The slow `inspect` is used for difficult cases and for error texts."""
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
        """Raise the decoder's error with the name of the argument instead of its place in the array."""
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
    """Return what `RunSignature.described` returns, for any signature."""
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
    """Encode a value such that equal dicts and sets have equal bytes."""
    try:
        return _sorting_encoder.encode(value)
    except TypeError:
        # msgspec cannot sort dicts with keys other than strings, nor sets of mixed types.
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
    """Return the signature without ``self``, and for each parameter and ``return`` a type that msgspec can decode."""
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
    """Return the annotation with its strings resolved; unchanged if they cannot be resolved."""
    if annotation is inspect.Parameter.empty:
        return annotation
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, globalns=scope, include_extras=True)["it"]
    except Exception:  # evaluating a user's string may raise anything; an annotation is never a reason to fail
        return annotation


def _decodable(annotation: Any) -> Any:
    """Return the annotation if msgspec can decode it without help, otherwise Any."""
    if annotation is inspect.Parameter.empty:
        return Any
    import msgspec.inspect

    try:
        custom = _is_custom(msgspec.inspect.type_info(annotation))
    except Exception:  # type_info raises whatever the user's types raise; an annotation is never a reason to fail
        return Any
    return Any if custom else annotation


def _is_custom(info: Any) -> bool:
    """Return whether msgspec lacks support for a type or a type in its containers. Ignores fields of classes."""
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
        # `x: int = None` means an optional int. Any other default that does not fit shows that the annotation is wrong.
        hint = typing.Optional[hint] if given.default is None else Any  # noqa: UP045 -- a value, not an annotation
    return _Parameter(given.name, given.kind, hint, given.default, None)


def _shown(signature: inspect.Signature) -> str:
    text = str(signature)
    return text if len(text) <= 400 else f"{text[:397]}..."
