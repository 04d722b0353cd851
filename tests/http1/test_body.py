"""The body decoders: every split of the wire gives the same content, and no sloppy framing."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.http1.body import ChunkedDecoder, Decoder, FramingError, LengthDecoder, UntilClose


def run(decoder: Decoder, wire: bytes, cuts: tuple[int, ...] = ()) -> tuple[bytes, bytes]:
    """Feeds `wire` cut at the given positions: (content, what lay behind the body)."""
    content, behind = b"", b""
    edges = [0, *sorted(cuts), len(wire)]
    for start, stop in pairwise(edges):
        pieces, rest = decoder.feed(wire[start:stop])
        assert all(pieces)
        content += b"".join(pieces)
        behind += rest
    return content, behind


def every_byte(wire: bytes) -> tuple[int, ...]:
    return tuple(range(1, len(wire)))


GOOD = {
    "one chunk": (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "several chunks": (b"5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n\r\n", b"hello world"),
    "empty body": (b"0\r\n\r\n", b""),
    "upper and lower hex, leading zeros": (b"0A\r\n0123456789\r\n00b\r\n01234567890\r\n000\r\n\r\n",
                                           b"012345678901234567890"),
    "sixteen digits": (b"0000000000000001\r\nx\r\n0\r\n\r\n", b"x"),
    "extensions are ignored": (b'1;a\r\nx\r\n1;b=c;d="e;\tf"\r\ny\r\n0;last\r\n\r\n', b"xy"),
    "trailers are dropped": (b"1\r\nx\r\n0\r\nETag: \"a\"\r\nX-Sum:\r\nA:\xe9\r\n\r\n", b"x"),
    "CRLF inside the data is data": (b"6\r\n\r\n0\r\n\r\r\n0\r\n\r\n", b"\r\n0\r\n\r"),
}  # fmt: skip


@pytest.mark.parametrize("rule", GOOD)
@pytest.mark.parametrize("split", [False, True])
def test_chunked_accepts(rule: str, split: bool) -> None:
    wire, content = GOOD[rule]
    decoder = ChunkedDecoder()
    assert run(decoder, wire, every_byte(wire) if split else ()) == (content, b"")
    assert decoder.done
    assert decoder.eof()


BAD = [
    ("chunk-size", "no digit", b"\r\n"),
    ("chunk-size", "only an extension", b";a\r\n"),
    ("chunk-size", "hex prefix", b"0x5\r\nhello\r\n"),
    ("chunk-size", "plus sign", b"+5\r\nhello\r\n"),
    ("chunk-size", "minus sign", b"-5\r\nhello\r\n"),
    ("chunk-size", "underscore", b"1_0\r\n"),
    ("chunk-size", "leading space", b" 5\r\nhello\r\n"),
    ("chunk-size", "trailing space", b"5 \r\nhello\r\n"),
    ("chunk-size", "whitespace before an extension", b"5 ;a\r\nhello\r\n"),
    ("chunk-size", "tab", b"5\t\r\nhello\r\n"),
    ("chunk-size", "seventeen digits", b"00000000000000005\r\nhello\r\n"),
    ("chunk-size", "not a hex digit", b"g\r\n"),
    ("chunk-size", "bare LF", b"5\nhello\r\n"),
    ("chunk-size", "bare CR", b"5\rhello\r\n"),
    ("chunk-size", "NUL", b"5\x00\r\nhello\r\n"),
    ("chunk-size", "CR twice", b"5\r\r\nhello\r\n"),
    ("chunk-size", "CRLF before the size", b"\r\n5\r\nhello\r\n"),
    ("chunk-extension", "bare LF in an extension", b"5;a\nhello\r\n"),
    ("chunk-extension", "bare CR in an extension", b"5;a\rb\r\nhello\r\n"),
    ("chunk-extension", "NUL in an extension", b"5;\x00\r\nhello\r\n"),
    ("chunk-extension", "DEL in an extension", b"5;\x7f\r\nhello\r\n"),
    ("chunk-end", "data longer than its size", b"5\r\nhello!\r\n0\r\n\r\n"),
    ("chunk-end", "LF after the data", b"5\r\nhello\n0\r\n\r\n"),
    ("chunk-end", "CR alone after the data", b"5\r\nhello\r0\r\n\r\n"),
    ("trailer", "space before the colon", b"0\r\nA : b\r\n\r\n"),
    ("trailer", "no colon", b"0\r\nab\r\n\r\n"),
    ("trailer", "no name", b"0\r\n: b\r\n\r\n"),
    ("trailer", "folded line", b"0\r\nA: b\r\n c\r\n\r\n"),
    ("trailer", "bare LF", b"0\r\nA: b\n\r\n"),
    ("trailer", "LF ends the body", b"0\r\n\n"),
    ("trailer", "NUL", b"0\r\nA: \x00\r\n\r\n"),
    ("trailer", "CR and no LF", b"0\r\n\rx"),
    ("extensions-too-large", "one line", b"1;" + b"a" * 64 + b"\r\nx\r\n0\r\n\r\n"),
    ("extensions-too-large", "in total", (b"1;" + b"a" * 9 + b"\r\nx\r\n") * 8),
    ("extensions-too-large", "a line without an end", b"1;" + b"a" * 96),
    ("trailers-too-large", "one line", b"0\r\nA: " + b"a" * 64 + b"\r\n\r\n"),
    ("trailers-too-large", "in total", b"0\r\n" + b"A: aaaaaaaa\r\n" * 8 + b"\r\n"),
    ("trailers-too-large", "a line without an end", b"0\r\nA: " + b"a" * 96),
]


@pytest.mark.parametrize(("rule", "case", "wire"), BAD, ids=[f"{r}: {c}" for r, c, _ in BAD])
@pytest.mark.parametrize("split", [False, True])
def test_chunked_refuses(rule: str, case: str, wire: bytes, split: bool) -> None:
    with pytest.raises(FramingError) as error:
        run(ChunkedDecoder(64, 64), wire, every_byte(wire) if split else ())
    assert error.value.rule == rule


@pytest.mark.parametrize("wire", [wire for wire, _ in GOOD.values()])
def test_an_end_inside_a_chunked_body_is_never_clean(wire: bytes) -> None:
    for length in range(len(wire)):
        decoder = ChunkedDecoder()
        run(decoder, wire[:length])
        assert not decoder.done
        assert not decoder.eof()


chunks = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
extension = st.sampled_from([b"", b";a", b';a="b;c"', b";;"])
trailer = st.sampled_from([b"", b"A: b\r\n", b"A:\r\nB: c\r\n"])


@given(chunks, extension, trailer, st.binary(max_size=20), st.data())
def test_any_split_gives_the_same_content(
    pieces: list[bytes], ext: bytes, tail: bytes, behind: bytes, data: st.DataObject
) -> None:
    body = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), ext, piece) for piece in pieces)
    wire = body + b"0\r\n" + tail + b"\r\n" + behind
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=8))
    decoder = ChunkedDecoder()
    assert run(decoder, wire, tuple(cuts)) == (b"".join(pieces), behind)
    assert decoder.done


scraps = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b"0", b"1", b"a", b";", b":", b" ", b"\x00", b"\xff"]),
    max_size=24,
).map(b"".join)


@given(scraps, st.lists(st.integers(0, 40), max_size=6))
def test_any_split_gives_the_same_verdict(wire: bytes, cuts: list[int]) -> None:
    def verdict(at: tuple[int, ...]) -> object:
        decoder = ChunkedDecoder(8, 8)
        try:
            return run(decoder, wire, at), decoder.done
        except FramingError:
            return "refused"

    assert verdict(tuple(min(cut, len(wire)) for cut in cuts)) == verdict(())


@given(st.integers(0, 50), st.binary(max_size=80), st.lists(st.integers(0, 80), max_size=6))
def test_length_decoder_takes_its_bytes_and_no_more(
    length: int, wire: bytes, cuts: list[int]
) -> None:
    decoder = LengthDecoder(length)
    content, behind = run(decoder, wire, tuple(min(cut, len(wire)) for cut in cuts))
    assert (content, behind) == (wire[:length], wire[length:])
    assert decoder.done == decoder.eof() == (len(wire) >= length)


def test_until_close_ends_only_with_the_stream() -> None:
    decoder = UntilClose()
    assert decoder.feed(b"abc") == ([b"abc"], b"")
    assert decoder.feed(b"") == ([], b"")
    assert not decoder.done
    assert decoder.eof()
    assert decoder.done


def test_a_large_piece_is_handed_on_uncopied() -> None:
    piece = bytes(100_000)
    (given_back,), _ = LengthDecoder(200_000).feed(piece)
    assert given_back is piece
    chunked = ChunkedDecoder()
    chunked.feed(b"%x\r\n" % 200_000)
    (given_back,), _ = chunked.feed(piece)
    assert given_back is piece
