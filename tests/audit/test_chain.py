import json
from hashlib import sha256
from uuid import UUID

from hypothesis import example, given
from hypothesis import strategies as st

from tokenserver.audit.chain import link_hash

TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]))
DETAILS = st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=5))


@given(
    st.binary(min_size=32, max_size=32),
    st.uuids(),
    st.uuids(),
    st.integers(0, 2**60),
    st.lists(TEXTS, min_size=10, max_size=10),
    DETAILS,
)
@example(bytes(32), UUID(int=1), UUID(int=2), 3, [None] * 10, {"a": 1e-7, "b": 1e16, "c": 1.5, "d": 1 << 70})
def test_the_hash_is_that_of_the_documented_text(
    before: bytes, chain: UUID, event_id: UUID, at: int, texts: list[str | None], details: dict[str, object]
):
    """docs/audit.md says it to those who verify with programs of their own."""
    covered = [str(chain), 7, str(event_id), at, *texts, details]
    text = json.dumps(covered, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    assert link_hash(before, chain, 7, (event_id, at, *texts, details)) == sha256(before + text.encode()).digest()
