"""A YAML file whose every refusal names the file, the line and the reason, with a «did you mean»."""

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path

import yaml

from modelmeter.errors import WrongSetting

Fields = dict[str, yaml.Node]


class Document:
    """The nodes of one file. All its methods raise WrongSetting."""

    def __init__(self, path: Path, content: str | None = None) -> None:
        self.path = path
        try:
            content = path.read_text("utf-8") if content is None else content
            self.root: yaml.Node | None = yaml.compose(content, Loader=yaml.SafeLoader)
        except OSError as error:
            raise WrongSetting(f"{path}: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise WrongSetting(f"{path}: {error}") from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise WrongSetting(f"{path}:{line}: not YAML: {error.problem}") from None
        except yaml.reader.ReaderError as error:
            line = str(content).count("\n", 0, error.position) + 1
            raise WrongSetting(f"{path}:{line}: not YAML: {error.reason}") from None

    def wrong(self, node: yaml.Node, reason: str) -> WrongSetting:
        return WrongSetting(f"{self.path}:{node.start_mark.line + 1}: {reason}")

    def fields(
        self, node: yaml.Node, known: Collection[str], what: str, hints: Mapping[str, str] | None = None
    ) -> Fields:
        """The fields of a mapping, all of them known. `hints` say what to do instead of some that are not."""
        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(node, f"{what} must be a mapping with {', '.join(sorted(known))}")
        found: Fields = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.wrong(key, f"a field of {what} is a word")
            name = str(key.value)
            if name not in known:
                if hints and name in hints:
                    raise self.wrong(key, f"{what}: {name}: {hints[name]}")
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
                raise self.wrong(key, f"{what} has no field {name!r}; {hint}")
            if name in found:
                raise self.wrong(key, f"{name} stands twice")
            found[name] = value
        return found

    def items(self, node: yaml.Node | None, what: str) -> list[yaml.Node]:
        """The items of a list; none when it is not there, or empty."""
        if node is None or (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")):
            return []
        if not isinstance(node, yaml.SequenceNode):
            raise self.wrong(node, f"{what} must be a list")
        return list(node.value)

    def mapping(self, node: yaml.Node | None, what: str) -> dict[str, str]:
        """Texts by name."""
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(node, f"{what} must be a mapping of texts")
        return {self.text(key, what): self.text(value, what) for key, value in node.value}

    def text(self, node: yaml.Node, what: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or not str(node.value):
            raise self.wrong(node, f"{what} must be a text")
        return str(node.value)

    def texts(self, node: yaml.Node | None, what: str) -> list[str]:
        return [self.text(one, what) for one in self.items(node, what)]

    def flag(self, fields: Fields, name: str, default: bool) -> bool:
        node = fields.get(name)
        if node is None:
            return default
        if not isinstance(node, yaml.ScalarNode) or str(node.value).lower() not in {"true", "false"}:
            raise self.wrong(node, f"{name} must be true or false")
        return str(node.value).lower() == "true"
