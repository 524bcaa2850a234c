"""Go's text templates with Prometheus' functions, as far as the labels and annotations of rules use them.

    {{ $labels.name }} is slow: {{ $value | humanizeDuration }}

parse -> node            the text to a tree, once
execute, functions       the tree and the data to a text, as often as the rule fires
gofmt                    numbers and values as Go's fmt prints them
"""

from modelmeter.template.execute import Scope, Template, TemplateError
from modelmeter.template.functions import Sample

__all__ = ["Sample", "Scope", "Template", "TemplateError"]
