"""Opt-outs: numbers that want no messages, and the words by which they say so.

The English words are those by which US carriers and their providers let recipients opt out, without
YES, which answers other questions, too. A message is such a word only if it consists of nothing
else, apart from case, accents, punctuation and white space: "Please stop by tomorrow" is not one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from smsqueue.message.messages import IncomingMessage, check_category
from smsqueue.message.opt_outs import OptOutChange, scope_of

__all__ = ["ANSWERS", "KEYWORDS", "Keyword", "OptOuts"]

Keyword = Literal["stop", "start", "help"]

#: Words by language and by what they mean.
KEYWORDS: Mapping[str, Mapping[Keyword, tuple[str, ...]]] = {
    "en": {
        "stop": (
            *("stop", "stopall", "stop all", "unsubscribe", "cancel", "end", "quit", "optout"),
            *("opt out", "opt-out", "revoke"),
        ),
        "start": ("start", "unstop", "subscribe", "optin", "opt in", "opt-in"),
        "help": ("help", "info"),
    },
    "de": {
        "stop": ("stopp", "abmelden", "abbestellen", "austragen"),
        "start": ("anmelden",),
        "help": ("hilfe",),
    },
    "fr": {
        "stop": ("arret", "arreter", "desabonner", "desinscrire", "desinscription"),
        "start": ("demarrer", "abonner", "reprendre"),
        "help": ("aide",),
    },
    "es": {
        "stop": ("alto", "parar", "baja", "cancelar", "detener"),
        "start": ("alta", "iniciar", "reanudar"),
        "help": ("ayuda",),
    },
    "pt": {
        "stop": ("parar", "pare", "sair", "cancelar", "descadastrar"),
        "start": ("iniciar", "voltar", "cadastrar"),
        "help": ("ajuda",),
    },
}

#: Category of the answers to these words. Messages of it go out in spite of an opt-out.
ANSWERS = "opt-out-answer"


@dataclass(frozen=True)
class OptOuts:
    """What a gateway does about opt-outs: ``Gateway(opt_outs=OptOuts())``.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    #: Whose words count: keys of :data:`KEYWORDS`.
    languages: Collection[str] = ("en", "de", "fr", "es", "pt")
    #: More words, which replace those of the languages where they differ.
    keywords: Mapping[str, Keyword] = field(default_factory=dict)
    #: Whom a word concerns: all senders of this gateway, or the one that it was sent to.
    scope: Literal["global", "sender"] = "global"
    #: Categories of messages that go out in spite of an opt-out, such as one-time passwords.
    exempt: Collection[str] = ()
    #: Texts that are sent once a day at most to a number that sent such a word, and that a message
    #: was sent to before. None: nothing is sent.
    stop_answer: str | None = None
    start_answer: str | None = None
    help_answer: str | None = None

    def __post_init__(self) -> None:
        for name in ("languages", "exempt"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Collection):
                raise TypeError(f"OptOuts: {name} must be a list, not {type(value).__name__}")
        if not isinstance(self.keywords, Mapping):
            raise TypeError(
                'OptOuts: keywords must be a dict such as {"bye": "stop"}, '
                f"not {type(self.keywords).__name__}"
            )
        unknown = [language for language in self.languages if language not in [*KEYWORDS]]
        if unknown:
            raise ValueError(
                f"OptOuts: unknown language {unknown[0]!r}; known: {', '.join(KEYWORDS)}"
            )
        for category in self.exempt:
            check_category("OptOuts: an exempt category", category)
        if self.scope not in ("global", "sender"):
            raise ValueError(f'OptOuts: scope must be "global" or "sender", not {self.scope!r}')
        for word, meaning in self.keywords.items():
            if not isinstance(word, str) or not _plain(word):
                raise ValueError(f"OptOuts: {word!r} is not a keyword: it has no letter or digit")
            if meaning not in ("stop", "start", "help"):
                raise ValueError(
                    f'OptOuts: keyword {word!r} must mean "stop", "start" or "help", '
                    f"not {meaning!r}"
                )
        for name in ("stop_answer", "start_answer", "help_answer"):
            text = getattr(self, name)
            if text is not None and not isinstance(text, str):
                raise TypeError(f"OptOuts: {name} must be text, not {type(text).__name__}")
        words = {
            _plain(word): meaning
            for language in self.languages
            for meaning, some in KEYWORDS[language].items()
            for word in some
        }
        words |= {_plain(word): meaning for word, meaning in self.keywords.items()}
        object.__setattr__(self, "_words", words)

    def keyword_of(self, message: IncomingMessage) -> Keyword | None:
        """What an incoming message asks for, if it is a keyword. One of another channel is none."""
        if message.channel is not None or message.part is not None or not message.replyable:
            return None
        words: Mapping[str, Keyword] = vars(self)["_words"]
        return words.get(_plain(message.body)) if len(message.body) <= 64 else None

    def change_of(self, message: IncomingMessage) -> OptOutChange | None:
        """The change that a message with a keyword asks for."""
        if message.keyword not in ("stop", "start"):
            return None
        sender = message.dst if self.scope == "sender" else None
        word = _plain(message.body)
        return OptOutChange(scope_of(sender, None), word, "keyword", message.keyword == "start")

    def answer_to(self, keyword: Keyword) -> str | None:
        """The text that answers a keyword."""
        match keyword:
            case "stop":
                return self.stop_answer
            case "start":
                return self.start_answer
            case "help":
                return self.help_answer


def _plain(text: str) -> str:
    """A text in lower case without accents and punctuation, with single spaces."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    letters = "".join(c for c in decomposed if not unicodedata.combining(c))
    return " ".join(re.findall(r"\w+", letters))
