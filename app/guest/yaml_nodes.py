"""YAML with places: a tree of nodes that remember their lines, for messages that point.

PyYAML's composer does the parsing; nothing in a file can make it construct objects.
"""

from collections.abc import Iterator

import yaml

from app.core.errors import InvalidArgument

# LinuxKit files are a few KiB. The bounds keep a hostile one from costing more than a moment.
_MAX_TEXT_BYTES = 1024 * 1024
_MAX_NODES = 50_000
_MAX_DEPTH = 40

Scalar = str | int | float | bool | None


class Node:
    """A value of the file.

    Attributes:
        line: Line of the file where it begins, from 1.
        path: Where it is in the document, e.g. `files[2].mode`; empty for the document itself.
        value: A scalar, a list of nodes, or a dict of nodes by key.
    """

    __slots__ = ("line", "path", "value")

    def __init__(
        self, line: int, path: str, value: "Scalar | list[Node] | dict[str, Node]"
    ) -> None:
        self.line = line
        self.path = path
        self.value = value


def parse_yaml(text: bytes, source: str) -> Node:
    """Parse one YAML document.

    Args:
        text: UTF-8.
        source: Name of the file, for messages.

    Raises:
        InvalidArgument: It is not YAML, has a key twice or one that is no string, or is
            unreasonably large (aliases count each time they are used).
    """
    if len(text) > _MAX_TEXT_BYTES:
        raise InvalidArgument(f"{source} is larger than {_MAX_TEXT_BYTES} bytes")
    try:
        root = yaml.compose(text.decode(), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as exc:
        raise InvalidArgument(f"{source} is not UTF-8 text: {exc}") from exc
    except (yaml.YAMLError, RecursionError) as exc:
        raise InvalidArgument(f"{source} is not YAML: {_one_line(exc)}") from exc
    if root is None:
        raise InvalidArgument(f"{source} is empty")
    return _Converter(source).convert(root, "", 0)


def _one_line(exc: Exception) -> str:
    mark = getattr(exc, "problem_mark", None)
    problem = getattr(exc, "problem", None)
    if mark is not None and problem:
        return f"line {mark.line + 1}: {problem}"
    return " ".join(str(exc).split())


class _Converter:
    def __init__(self, source: str) -> None:
        self._source = source
        self._constructor = yaml.constructor.SafeConstructor()
        self._nodes = 0

    def convert(self, node: yaml.Node, path: str, depth: int) -> Node:
        line = node.start_mark.line + 1
        self._nodes += 1
        if self._nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise InvalidArgument(f"{self._source} line {line}: the document is too large or deep")
        if isinstance(node, yaml.MappingNode):
            return Node(line, path, dict(self._pairs(node, path, depth)))
        if isinstance(node, yaml.SequenceNode):
            items = [
                self.convert(item, f"{path}[{index}]", depth + 1)
                for index, item in enumerate(node.value)
            ]
            return Node(line, path, items)
        return Node(line, path, self._scalar(node, line))

    def _pairs(self, node: yaml.MappingNode, path: str, depth: int) -> Iterator[tuple[str, Node]]:
        seen: set[str] = set()
        for key_node, value_node in node.value:
            key = key_node.value
            line = key_node.start_mark.line + 1
            if not isinstance(key, str) or key_node.tag == "tag:yaml.org,2002:merge":
                raise InvalidArgument(f"{self._source} line {line}: a key must be a plain name")
            if key in seen:
                raise InvalidArgument(f"{self._source} line {line}: {key} is given twice")
            seen.add(key)
            value = self.convert(value_node, f"{path}.{key}" if path else key, depth + 1)
            value.line = line
            yield key, value

    def _scalar(self, node: yaml.Node, line: int) -> Scalar:
        try:
            value = self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError) as exc:
            raise InvalidArgument(f"{self._source} line {line}: {_one_line(exc)}") from exc
        if value is None or isinstance(value, (str, int, float, bool)):
            return value
        # A date, or bytes: LinuxKit has neither, and the text is what was meant.
        return str(node.value)
