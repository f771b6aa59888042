"""What a form is shown again with: why it was refused, in words and field by field."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from tokenserver.errors import Refused, TooManyRequests
from tokenserver.web.language import marked, translated
from tokenserver.web.problems import failure_of

# Where an error tells of one field alone.
FIELDS: Final = {
    "username_taken": "username",
    "email_taken": "email",
    "invalid_credentials": "current_password",
    "reauthentication_required": "current_password",
    "invalid_otp": "otp",
    "second_factor_required": "otp",
}
# In people's words what programs are told in theirs; the rest of what marshmallow says of a form's fields.
SPOKEN: Final = {
    "Send current_password too.": marked("Enter your current password too."),
    "Send otp too: a code of the authenticator app, or a recovery code.": marked(
        "Enter a code of your authenticator app, or a recovery code, too."
    ),
    "The code is wrong.": marked("The code is wrong."),
    "Missing data for required field.": marked("Fill this in."),
    "Length must be between 1 and 64.": marked("Use at most 64 characters."),
    "Length must be between 1 and 200.": marked("Use at most 200 characters."),
    "Length must be between 1 and 254.": marked("Use at most 254 characters."),
    "Longer than maximum length 1024.": marked("Use at most 128 characters."),
    "No control characters.": marked("Use no control characters."),
}
SEVERAL: Final = marked("Some entries are not right yet.")


class Shown(NamedTuple):
    """`fields`: a sentence for each field that is wrong. All in the language of the request."""

    status: int
    code: str
    sentence: str
    fields: Mapping[str, str]
    retry_after: str | None = None


def shown(error: Refused | TooManyRequests) -> Shown:
    failure = failure_of(error)
    fields = {each.field: said(each.message) for each in failure.fields}
    sentence = said(failure.detail)
    if fields:
        sentence = translated(SEVERAL) if len(fields) > 1 else next(iter(fields.values()))
    elif failure.code in FIELDS:
        fields = {FIELDS[failure.code]: sentence}
    return Shown(failure.status, failure.code, sentence, fields, failure.headers.get("Retry-After"))


def said(sentence: str) -> str:
    return translated(SPOKEN.get(sentence, sentence))
