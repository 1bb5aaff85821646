"""Parts of a generation and the tokens that they mean."""

from itertools import pairwise

import pytest
from hypothesis import assume, given, settings, strategies as st

from rapidin.data import Row
from rapidin.errors import SettingError
from rapidin.settings.store_settings import TextSettings
from rapidin.text import EncodedSample, Encoder, recognise, spans_in_response, tokens_in_spans
from tests.text import tiny_tokenizers as tiny

TOKENIZERS = {
    "bytes": tiny.llama_like(tiny.CHAT),
    "sentencepiece": tiny.sentence_piece(),
    "slow": tiny.SlowBytes(),
}


def encode(
    prompt: str, response: str, name: str = "bytes", **choices
) -> tuple[EncodedSample, list[tuple[int, int]]]:
    encoder = Encoder(TOKENIZERS[name], TextSettings(**choices), None)
    encoded = encoder.encode(recognise(Row("q", 1, {"prompt": prompt, "completion": response})))
    return encoded, encoder.token_spans(encoded)


def pattern(encoded: EncodedSample, *wanted, spans) -> tuple[str, tuple]:
    chosen = tokens_in_spans(encoded, spans, wanted)
    return "".join(".T"[target] for target in chosen.targets), chosen.spans


def test_every_occurrence_counts():
    encoded, spans = encode("ab", "xabyab")
    assert pattern(encoded, "ab", spans=spans) == ("....TT.TT.", ((1, 3), (4, 6)))
    assert pattern(encoded, "y", (0, 1), spans=spans) == ("...T..T...", ((0, 1), (3, 4)))
    assert pattern(encoded, "xa", "by", spans=spans) == ("...TTTT...", ((0, 4),))


def test_occurrences_may_overlap():
    encoded, spans = encode("", "aaab")
    assert pattern(encoded, "aa", spans=spans) == (".TTT..", ((0, 3),))


def test_all_bytes_of_a_character():
    encoded, spans = encode("p", "a👍é")
    assert pattern(encoded, "👍", spans=spans) == ("...TTTT...", ((1, 2),))
    assert pattern(encoded, (2, 3), spans=spans) == (".......TT.", ((2, 3),))
    assert pattern(encoded, (0, 3), spans=spans) == ("..TTTTTTT.", ((0, 3),))
    assert spans_in_response(encoded, spans) == [
        *[(0, 0), (0, 0), (0, 1)],
        *[(1, 1)] * 3,
        *[(1, 2), (2, 2), (2, 3), (3, 3)],
    ]


def test_a_token_that_overlaps_by_one_character_counts():
    encoded, spans = encode("p", "ab ab", "sentencepiece")
    assert pattern(encoded, "b a", spans=spans) == ("...TT.", ((1, 4),))
    assert pattern(encoded, " ", spans=spans) == ("....T.", ((2, 3),))


def test_only_what_the_assistant_says_last_can_be_asked_about():
    encoder = Encoder(TOKENIZERS["bytes"], TextSettings(), None)
    turns = [("user", "a"), ("assistant", "b"), ("user", "b"), ("assistant", "xbx")]
    row = recognise(Row("q", 1, {"messages": [{"role": role, "content": text} for role, text in turns]}))
    encoded = encoder.encode(row, row.response)
    chosen = tokens_in_spans(encoded, encoder.token_spans(encoded), ["b"])
    assert chosen.spans == ((1, 2),) and sum(chosen.targets) == 1


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["zzz"], r"span 'zzz' does not occur in the generation: .* 'The Capital\\n漢'"),
        (["capital"], "does not occur"),
        ([""], "without text"),
        ([], "no part"),
        ([(3, 3)], "span 3 to 3 is not within the generation: .* from 0 to 13"),
        ([(-1, 3)], "span -1 to 3 is not"),
        ([(3, 14)], "span 3 to 14 is not"),
        ([(5, 3)], "span 5 to 3 is not"),
        (["The", "zzz"], "'zzz'"),
    ],
)
def test_parts_that_are_not_there(wanted, message):
    encoded, spans = encode("say zzz", "The Capital\n漢")
    with pytest.raises(SettingError, match=message) as error:
        tokens_in_spans(encoded, spans, wanted)
    assert "\n" not in str(error.value)


def test_a_long_generation_is_not_shown_whole():
    encoded, spans = encode("p", "word " * 300)
    with pytest.raises(SettingError, match=r"… \(1,500 characters\)$") as error:
        tokens_in_spans(encoded, spans, ["zzz"])
    assert len(str(error.value)) < 400


def test_parts_without_a_target_token():
    encoded, spans = encode("ab", "cd ef", max_length=5)
    assert pattern(encoded, "cd", spans=spans) == ("...TT", ((0, 2),))
    with pytest.raises(SettingError, match=r"span 'ef' has no token .* cut off at the maximum length.*'cd ef'"):
        tokens_in_spans(encoded, spans, ["ef"])
    with pytest.raises(SettingError, match="span 3 to 5 has no token"):
        tokens_in_spans(encoded, spans, [(3, 5)])


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    prompt=st.text(st.sampled_from("ab é👍"), max_size=6),
    response=st.text(st.sampled_from("ab é👍漢\u0301"), min_size=1, max_size=12).filter(str.strip),
    data=st.data(),
)
def test_chosen_tokens_cover_the_parts_and_no_more_than_they_must(name, prompt, response, data):
    encoded, spans = encode(prompt, response, name)
    places = st.tuples(st.integers(0, len(response)), st.integers(0, len(response)))
    wanted = [tuple(sorted(place)) for place in data.draw(st.lists(places, min_size=1, max_size=3))]
    assume(all(start < end for start, end in wanted))
    chosen = tokens_in_spans(encoded, spans, wanted)
    assert all(target or not taken for taken, target in zip(chosen.targets, encoded.targets, strict=True))
    asked = {place for start, end in wanted for place in range(start, end)}
    assert asked == {place for start, end in chosen.spans for place in range(start, end)}
    assert all(one[1] < next[0] for one, next in pairwise(chosen.spans))
    covered = set()
    for (start, end), taken in zip(spans_in_response(encoded, spans), chosen.targets, strict=True):
        if taken:
            assert start == end or asked & set(range(start, end))
            covered |= set(range(start, end))
    assert asked <= covered
    texts = tokens_in_spans(encoded, spans, [response[start:end] for start, end in wanted])
    assert all(texts.targets[i] for i, taken in enumerate(chosen.targets) if taken)
