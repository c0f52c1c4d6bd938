"""The tokenizer against the installed CLIPTokenizer: equal ids, whatever is typed."""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import emoji
import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from sdlearn.tokenizer import (
    BOS,
    EOS,
    Tokenizer,
    kind,
    make_vocabulary,
    merge_pair,
    most_frequent_pair,
    normalize,
    spell,
    split_words,
    train_bpe,
)

SCRIPTS = """A small red apple on a blue background. It's the cat's tail; they're here, we'll go, I'd say they've won't.
Ein großes, grünes Gefäß: STRASSE, ẞ und ß, ﬁne ﬂügel. Ça été déjà là-bas, «œuvre» où? ¿El niño comió piña? ¡Sí!
İstanbul'da ılık IŞIK; i̇ ve ı. Žluťoučký kůň pěl ďábelské ódy. Cześć, łódź, źdźbło. Þórður át ís. Tiếng Việt rất đẹp.
ΑΣ ὈΔΥΣΣΕΎΣ ΣΑΣ ς, ᾳ ᾼ ᾈ, Ελληνικά; Съешь же ещё этих МЯГКИХ булок, ў ґ Ѣ. Հայերէն և. ქართული ᲥᲐᲠᲗᲣᲚᲘ. ᏣᎳᎩ ꭳ.
עִבְרִית שָׁלוֹם. اَلْعَرَبِيَّةُ، ١٢٣٤٥؟ فارسی ۱۲۳ می‌خواهم. हिन्दी क्षेत्र १२३ श्री। বাংলা ৪৫৬ ক্ষ। தமிழ் கொ ௧௨௩. ไทย ภาษาไทย ๑๒๓ น้ำ
中文字符，一二三〇。日本語のカタカナ｡ ﾊﾝｶｸ ヵ゙ ㍿ ㊙ ㉑. 한국어 각 ᄒ\u1161\u11ab 漢字 豈 豈.
བོད་ཡིག ༡༢ ខ្មែរ ១២ မြန်မာ ၁၂ አማርኛ ፩፪
😀👍🏽 👩‍👩‍👧‍👦🏳️‍🌈 🇨🇭 1️⃣ ☕︎ ❤️ ™ © ® ½ ⅷ Ⅷ ² ₃ ① ⓐ Ⓐ 𝟙𝟚 𝔄𝖇 𐐀𐐨 𞤀𞤢 Ǆ ǅ ǆ ŉ ǰ ΐ Å Ω K ſ ﬀ
e\u0301 E\u0301 a\u0323\u0302 a\u0302\u0323 q\u0323\u0307 \u0344 \u0958 \u2126 \u212b \ufb1d \U0001d15e
x\x00y\x07z\x1b \x1c\x1d\x1e\x1f \x85 \xa0 \xad \u1680
\u180e\u2003\u200b\u200c\u200d\u2028\u2029\u202f\u205f\u2060\u3000\ufeff
!!! ... ?! 'S 'T 'RE 'sam ''s '' ’s `s #1 @me a_b c++ $9.99 100% x² <b>hi</b> </w> a</w>b <| |> <|x|> {json}
<|startoftext|> <|endoftext|>a<|endoftext|> !<|startoftext|>! <|STARTOFTEXT|>!! <|EndOfText|>!!
<|endoftext|<|endoftext|>>"""

ODD = [
    *SCRIPTS.split("\n"),
    *SCRIPTS.split(),
    *(
        "",
        " ",
        "\n",
        "\r\n\t",
        "\x1f",
        "'",
        "''",
        "a",
        "\u0301",
        "\u0301a",
        "A" * 50,
        "ab" * 100,
        "cat " * 100,
        "1" * 90,
    ),
    *("ΑΣ", "ΑΣ.", "İ", "ẞ", "ŉ", "\ud7a3", "\U0010ffff", "\ue000", "\ufffd", "\uffff", "\U000e0041"),
]


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return train_bpe([SCRIPTS, "a small red apple on a blue background " * 3, SCRIPTS.lower()], 1000)


@pytest.fixture(scope="module")
def folder(ours: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tokenizer"
    ours.save(folder)
    return folder


@pytest.fixture(scope="module")
def reference(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder)


def reference_ids(reference: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    return reference(texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids


def test_folder_is_read_by_transformers(ours: Tokenizer, folder: Path, reference: CLIPTokenizer) -> None:
    assert sorted(file.name for file in folder.iterdir()) == [
        *("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
    ]
    assert reference.get_vocab() == ours.vocab
    assert (reference.model_max_length, reference.pad_token) == (77, EOS)
    assert (reference.bos_token_id, reference.eos_token_id) == (len(ours) - 2, len(ours) - 1)


def test_rows_equal_reference(ours: Tokenizer, reference: CLIPTokenizer) -> None:
    rows = ours(ODD)
    assert rows.shape == (len(ODD), 77) and rows.dtype == torch.long
    assert (rows[:, -1] == ours.vocab[EOS]).all()  # the end is never cut off
    assert torch.equal(rows, reference_ids(reference, ODD))
    for text, row in zip(ODD, rows, strict=True):
        assert torch.equal(ours(text), row[None])
        assert ours.encode(text) == reference(text, add_special_tokens=False).input_ids
        assert ours.decode(row) == reference.decode(row, skip_special_tokens=True)
    assert ours([]).shape == (0, 77)


PIECES = st.sampled_from(
    [BOS, EOS, "<|", "|>", "'s", "'LL", "</w>", "Σ", "\u0301", "\u200d", "\x1c", "\x85", "1", " ", "apple"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=20), PIECES), max_size=12).map("".join))
def test_any_text_equals_reference(ours: Tokenizer, reference: CLIPTokenizer, text: str) -> None:
    assert torch.equal(ours(text), reference_ids(reference, [text]))
    assert ours.decode(ours.encode(text)) == reference.decode(reference(text).input_ids, skip_special_tokens=True)


def test_every_character_equals_reference(reference: CLIPTokenizer) -> None:
    """How it is lowered, and with which neighbours it forms a word. Of those above U+20000 a sample."""
    normalizer, splitter = reference.backend_tokenizer.normalizer, reference.backend_tokenizer.pre_tokenizer
    wrong = []
    edges = [0x2B720, 0x2B740, 0x2EBE0, 0x2EE40, 0x2EE60, 0x31340, 0x323A0, 0x10FFE0]  # of the newest ideographs
    for first in [*range(0, 0x20000, 0x20), *range(0x20000, 0x110000, 0x800), *edges]:
        characters = [chr(code) for code in range(first, first + 0x20) if not 0xD800 <= code < 0xE000]
        text = "\n".join(f"x{character}1{character}." for character in characters)
        words = [text[start:end] for _, (start, end) in splitter.pre_tokenize_str(text)]
        visible = "1".join(character for character in characters if kind(character) != "S")
        if words != list(split_words(text)) or normalize(visible) != normalizer.normalize_str(visible):
            wrong.append(f"U+{first:04X} to U+{first + 0x1F:04X}")
    assert not wrong


CORPUS = """a photograph of an astronaut riding a horse, highly detailed, 8k, artstation — don't!
Ein Apfel auf blauem Grund, größer als die Straßenbahn; Öl, Übermut und Äpfel. Schifffahrtsgesellschaftskapitän.
Une pomme rouge sur fond bleu, peinte à l'huile : « c'était déjà l'été », dit-elle. Où ça ? Là-bas, près de l'œuvre.
Una manzana roja sobre fondo azul; ¿quién la pintó? El niño, mañana. ¡Qué pingüino! L'àvia diu que sí, col·legi.
Uma maçã vermelha sobre fundo azul, pintada à mão; não há ninguém. Una mela rossa, perché no? È già così.
Een rode appel op een blauwe achtergrond, ideeën en 's avonds. Ett rött äpple på blå bakgrund. Et rødt æble på blåt.
Punainen omena sinisellä taustalla, päivää! Punane õun sinisel taustal. Sarkans ābols uz zila fona. Raudonas obuolys.
Czerwone jabłko na niebieskim tle, zażółć gęślą jaźń. Červené jablko na modrém pozadí, příliš žluťoučký kůň.
Piros alma kék háttér előtt, árvíztűrő tükörfúrógép. Un măr roșu pe fundal albastru, țară și ceață. Mollë e kuqe.
Mavi zemin üzerinde kırmızı bir elma, İstanbul'da IĞDIR ışığı. Quả táo đỏ trên nền xanh, người Việt Nam ở đâu?
Красное яблоко на синем фоне, съешь ещё этих мягких булок. Червоне яблуко на синьому тлі, їжак і ґанок. Ябълка.
Κόκκινο μήλο σε μπλε φόντο, ΟΔΥΣΣΕΥΣ, ὁ ἄνθρωπος, τῇ ψυχῇ. წითელი ვაშლი ლურჯ ფონზე. Կարմիր խնձոր կապույտ ֆոնի վրա։
תפוח אדום על רקע כחול, שָׁלוֹם עֲלֵיכֶם. تفاحة حمراء على خلفية زرقاء، السَّلامُ عَلَيْكُم ١٢٣. سیب قرمز روی زمینه‌ی آبی ۴۵۶. سرخ سیب۔
नीली पृष्ठभूमि पर लाल सेब, क्षत्रिय ज्ञान १२३। নীল পটভূমিতে লাল আপেল, বিশ্ব ৪৫৬। ਨੀਲੇ ਪਿਛੋਕੜ ਤੇ ਲਾਲ ਸੇਬ। વાદળી પૃષ્ઠભૂમિ પર લાલ સફરજન।
நீல பின்னணியில் சிவப்பு ஆப்பிள், ஸ்ரீ. నీలం నేపథ్యంలో ఎరుపు ఆపిల్. ನೀಲಿ ಹಿನ್ನೆಲೆಯಲ್ಲಿ ಕೆಂಪು ಸೇಬು. നീല പശ്ചാത്തലത്തിൽ ചുവന്ന ആപ്പിൾ. රතු ඇපල්.
แอปเปิ้ลสีแดงบนพื้นหลังสีน้ำเงิน ๑๒๓ ນ້ຳ ໝາກແອັບເປີ້ນສີແດງ ផ្លែប៉ោមក្រហម ပန်းသီးနီ ཀུ་ཤུ་དམར་པོ།
蓝色背景上的红苹果，油画，８Ｋ，超高清！藍色背景上的紅蘋果。
青い背景に赤いリンゴ、ｶﾀｶﾅとひらがな、㈱。파란 배경에 빨간 사과, 한국어 ㅋㅋㅋ.
በሰማያዊ ዳራ ላይ ቀይ ፖም። Tufaa jekundu, Ńdị Igbo, Ẹ káàárọ̀, ụ́. ᎠᎹ ᏣᎳᎩ. ꦲꦏ꧀ꦱꦫ. 𐐔𐐯𐑅. 𓀀𓂀. 𒀀. ᚠᚢᚦ. ⴰⵣⵓⵍ. ߒߞߏ.
(masterpiece:1.2), [blue|red], {a}, <lora:x:0.8>, 16:9 --ar 3:2, f/1.8, 50mm, 1girl, C++, e=mc², H₂O, 3½, №5, 10 °C, ±∞
👩🏽‍🚀🐴 ❤️‍🔥 🏴󠁧󠁢󠁷󠁬󠁳󠁿 ☎️ 🇯🇵🇰🇷 ¯\\_(ツ)_/¯ ｗｉｄｅ Ｔｅｘｔ 𝓯𝓪𝓷𝓬𝔂 ǅungla ﬁn Åse Z͑ͫa͙l͖g̢o …—–‘’“” tab\there line
don't DON'T I'M you'll they'VE '90s rock'n'roll O'Neill's it''s ' s naïve façade coöperate Ångström Dvořák"""


def emoji_names() -> Iterator[str]:
    """Emojis with their names, in turn in the languages that the package `emoji` knows."""
    languages = ["en", "de", "es", "fr", "it", "pt", "id", "tr", "ru", "fa", "ar", "ja", "ko", "zh"]
    emoji.config.load_language(languages)
    for i, (character, names) in enumerate(emoji.EMOJI_DATA.items()):
        language = languages[i % len(languages)]
        if language in names:
            yield f"{character} {names[language].strip(':').replace('_', ' ')}"


@pytest.mark.parametrize("pad", [EOS, "!"])
def test_full_vocabulary_in_many_languages(pad: str, tmp_path: Path) -> None:
    Tokenizer.clip(pad).save(tmp_path)
    full = Tokenizer.from_folder(tmp_path)  # in which typed padding is padding, as in Transformers
    reference = CLIPTokenizer.from_pretrained(tmp_path)
    texts = [*CORPUS.split("\n"), *CORPUS.split(), *emoji_names(), *ODD, "a cat! !!"]
    assert len(texts) > 3000 and len({text[-1:] for text in texts}) > 500
    rows = full(texts)
    differences = [
        text for text, same in zip(texts, rows == reference_ids(reference, texts), strict=True) if not same.all()
    ]
    assert not differences
    assert (rows[texts.index("a cat! !!"), -1] == full.vocab[pad]).all()


def test_full_vocabulary_is_clips() -> None:
    """Ids that many pages about CLIP quote."""
    full = Tokenizer.clip()
    assert (len(full), len(full.merges)) == (49408, 48894)
    assert [full.vocab[token] for token in ("!", BOS, EOS, "a</w>", "i" + "n")] == [0, 49406, 49407, 320, 512]
    assert full.encode("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert full.encode("hello world") == [3306, 1002]
    assert full("a photograph of an astronaut riding a horse")[0, :10].tolist() == [
        *(49406, 320, 8853, 539, 550, 18376, 6765, 320, 4558, 49407)
    ]


def test_python_lower_would_differ() -> None:
    assert "ΑΣ".lower() == "ας" and normalize("ΑΣ") == "ασ"
    assert normalize("E\u0301İẞ") == "éi̇ß"


def test_split_words() -> None:
    assert list(split_words("it's 31 cats!! <|endoftext|>!")) == [
        *("it", "'s", "3", "1", "cats", "!!", "<|", "endoftext", "|>", "!")
    ]


def test_truncated_is_what_no_row_holds(ours: Tokenizer) -> None:
    words = ["red", "apple", "on", "a", "blue", "background"] * 20
    text = " ".join(words)
    assert ours.truncated("a red apple") == ""
    assert f"{ours.decode(ours(text)[0])} {ours.truncated(text)}" == text
    short = Tokenizer(ours.vocab, ours.merges, max_length=5)
    assert short.truncated(text) == ours.decode(ours.encode(text)[3:])
    assert short("a a a").tolist() == [[ours.vocab[BOS], *ours.encode("a a a"), ours.vocab[EOS]]]


def test_stable_diffusion_2_pads_with_exclamation_mark(ours: Tokenizer, tmp_path: Path) -> None:
    """There "!" is a special token, so a typed one has the id 0, not that of "!</w>"."""
    Tokenizer(ours.vocab, ours.merges, pad_token="!").save(tmp_path)
    read, reference = Tokenizer.from_folder(tmp_path), CLIPTokenizer.from_pretrained(tmp_path)
    assert (read.pad_token, reference.pad_token_id) == ("!", 0)
    assert torch.equal(read([*ODD, "a cat! !!"]), reference_ids(reference, [*ODD, "a cat! !!"]))
    assert read("a")[0, 3:].eq(0).all()


@pytest.mark.parametrize("pad", [EOS, "!"])
@pytest.mark.parametrize("newer", [False, True])
def test_folders_of_the_hub(ours: Tokenizer, tmp_path: Path, pad: str, newer: bool) -> None:
    """There the special tokens are dictionaries; newer files hold them in `added_tokens_decoder`."""
    ours.save(tmp_path)
    mark = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS}
    config = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "pad_token": pad if newer else EOS, **special}
    if newer:
        added = {str(ours.vocab[token]): {"content": token, **mark, "special": True} for token in (pad, BOS, EOS)}
        config["added_tokens_decoder"] = added
    else:
        config |= {key: {"__type": "AddedToken", "content": token, **mark} for key, token in special.items()}
    tokens = {key: {"content": token, **mark} for key, token in special.items()}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({**tokens, "pad_token": pad}))
    texts = [text for text in [*ODD, "a cat! !!"] if "<|START" not in text and "<|End" not in text]
    read, reference = Tokenizer.from_folder(tmp_path), CLIPTokenizer.from_pretrained(tmp_path)
    assert torch.equal(read(texts), reference_ids(reference, texts))


def test_folder_written_by_transformers(ours: Tokenizer, reference: CLIPTokenizer, tmp_path: Path) -> None:
    reference.save_pretrained(tmp_path)
    for file in ("vocab.json", "merges.txt"):
        (tmp_path / file).unlink(missing_ok=True)
    read = Tokenizer.from_folder(tmp_path)
    assert (read.vocab, read.merges, read.pad_token) == (ours.vocab, ours.merges, EOS)
    assert torch.equal(read(ODD), ours(ODD))


def test_saved_and_read_is_the_same(ours: Tokenizer, folder: Path) -> None:
    read = Tokenizer.from_folder(folder)
    assert (read.vocab, read.merges, read.max_length) == (ours.vocab, ours.merges, ours.max_length)


def test_unknown_symbols_are_the_end_token(ours: Tokenizer, tmp_path: Path) -> None:
    """A vocabulary without some bytes: the reference gives the end token for each."""
    merges = [pair for pair in ours.merges if not {"z", "Ã"} & {*"".join(pair)}]
    tokens = [token for token in make_vocabulary(merges) if token not in ("z", "z</w>", "Ã")]
    Tokenizer({token: i for i, token in enumerate(tokens)}, merges).save(tmp_path)
    read, reference = Tokenizer.from_folder(tmp_path), CLIPTokenizer.from_pretrained(tmp_path)
    texts = ["zebra", "z", "jazz", "é è", "pizza zoo"]
    assert torch.equal(read(texts), reference_ids(reference, texts))
    assert read.encode("z") == [len(tokens) - 1]


def test_worked_example_of_training() -> None:
    """Of the paper (section 3.2): low, lower, newest, widest."""
    texts = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3
    trained = train_bpe(texts, 514 + 4)
    # e-s, s-t</w> come 9 times each; the tie goes to ("e", "s"). Then es-t</w> 9 times, l-o 7 times, and of n-e, e-w,
    # w-est</w> (6 times each) the first by name.
    assert trained.merges == [("e", "s"), ("es", "t</w>"), ("l", "o"), ("e", "w")]
    assert list(trained.vocab)[-6:] == ["es", "est</w>", "lo", "ew", BOS, EOS]
    assert trained.merge("newest") == ["n", "ew", "est</w>"]
    assert trained.merge("lowest") == ["lo", "w", "est</w>"]


def test_training_stops_when_every_word_is_one_token() -> None:
    trained = train_bpe(["cat dog", "aaaa"], 10_000)
    assert [trained.merge(word) for word in ("cat", "dog", "aaaa")] == [["cat</w>"], ["dog</w>"], ["aaaa</w>"]]
    assert len(trained) == len(set(trained.vocab.values())) == 514 + len(trained.merges)
    assert train_bpe([], 514).merges == []


def test_merges_from_left_to_right() -> None:
    tokens = ["a", "a", "a", "b", "xa", "a"]
    assert merge_pair(tokens, ("a", "a")) == ["aa", "a", "b", "xa", "a"]
    assert merge_pair(tokens, ("x", "y")) == tokens and merge_pair([], ("a", "a")) == []
    assert tokens == ["a", "a", "a", "b", "xa", "a"]


def test_the_most_frequent_pair() -> None:
    assert most_frequent_pair([(["b", "a"], 2), (["a", "c", "b", "a"], 1)]) == ("b", "a")
    assert most_frequent_pair([(["c", "d"], 2), (["a", "b"], 2)]) == ("a", "b")  # a tie goes to the first by name
    assert most_frequent_pair([(["word"], 3)]) is most_frequent_pair([]) is None


def most_frequent(words: dict[str, int], merges: list[tuple[str, str]]) -> list[bool]:
    """For each merge in turn: was no other pair more frequent? Counted anew each time, by other code than ours."""
    pieces = {word: "\0".join(spell(word)) for word in words}
    verdicts = []
    for merge in merges:
        counts = Counter(
            pair for word, text in pieces.items() for pair in list(pairwise(text.split("\0"))) * words[word]
        )
        verdicts.append(counts[merge] == max(counts.values()) > 0)
        for word, text in pieces.items():
            joined, rest = [], text.split("\0")
            while rest:
                size = 2 if tuple(rest[:2]) == merge else 1
                joined.append("".join(rest[:size]))
                rest = rest[size:]
            pieces[word] = "\0".join(joined)
    return verdicts


def test_training_equals_reference_up_to_ties() -> None:
    """Hugging Face's trainer breaks ties by ids that depend on a hash, so merges are compared by their frequency.

    On a text where no two pairs are equally frequent before a word is complete, the merges must be the same.
    """
    words = {word: 2**i for i, word in enumerate(["ab", "bc", "cad", "adb", "dabc", "eab", "ae"])}
    texts = [" ".join([word] * count) for word, count in words.items()]

    def reference_merges(texts: list[str], vocab_size: int) -> list[tuple[str, str]]:
        reference = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix="</w>"))
        reference.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocab_size, end_of_word_suffix="</w>", show_progress=False)
        reference.train_from_iterator(texts, trainer)
        return [tuple(merge) for merge in json.loads(reference.to_str())["model"]["merges"]]

    theirs = reference_merges(texts, 1000)
    assert train_bpe(texts, 1000).merges == theirs

    caption_words = Counter(
        normalize("a small red apple lies on the large green background near another apple tree").split()
    )
    captions = [" ".join(caption_words.elements())]
    mine = train_bpe(captions, 514 + 30).merges
    assert len(mine) == 30 and all(most_frequent(caption_words, mine))
    assert all(most_frequent(caption_words, reference_merges(captions, 60)))


def test_errors(ours: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"vocab\.json"):
        Tokenizer.from_folder(tmp_path)
    with pytest.raises(ValueError, match="vocab_size = 513 is too small"):
        train_bpe(["a"], 513)
    with pytest.raises(ValueError, match=r"lacks 1 .* '<pad>'"):
        Tokenizer(ours.vocab, ours.merges, pad_token="<pad>")
    with pytest.raises(ValueError, match="lacks"):
        Tokenizer(ours.vocab, [("q", "#")])
    with pytest.raises(ValueError, match="max_length = 1"):
        Tokenizer(ours.vocab, ours.merges, max_length=1)
    with pytest.raises(ValueError, match="the id 1000 is not in the vocabulary"):
        ours.decode([1000])
    ours.save(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
    with pytest.raises(ValueError, match="'a b c'"):
        Tokenizer.from_folder(tmp_path)
    ours.save(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text('{"bos_token": "<s>"}')
    with pytest.raises(ValueError, match="bos_token = '<s>'"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", {"a": 0, "b": "1"}, "the ids of its 2 tokens must be 0 to 1, each once"),
        ("vocab.json", {"a": 0, "b": 0}, "the ids of its 2 tokens must be 0 to 1, each once"),
        ("vocab.json", {"a": 0, "b": -1}, "the ids of its 2 tokens must be 0 to 1, each once"),
        ("vocab.json", {"a": 0, "b": True}, "the ids of its 2 tokens must be 0 to 1, each once"),
        ("vocab.json", {"a": [0], "b": None}, "the ids of its 2 tokens must be 0 to 1, each once"),
        ("vocab.json", {}, "lacks"),
        ("tokenizer_config.json", {"model_max_length": None}, r"tokenizer_config\.json: model_max_length = None"),
        ("tokenizer_config.json", {"model_max_length": [77]}, r"model_max_length = \[77\], must be a number of 2"),
        ("tokenizer_config.json", {"model_max_length": True}, "model_max_length = True, must be a number of 2"),
        ("tokenizer_config.json", {"model_max_length": 1}, "model_max_length = 1, must be a number of 2"),
        ("special_tokens_map.json", {"pad_token": 5}, "pad_token = 5 is not supported; accepted: a text"),
        ("special_tokens_map.json", {"pad_token": ["!"]}, r"pad_token = \['!'\] is not supported; accepted: a text"),
        ("special_tokens_map.json", {"eos_token": {}}, None),
        ("special_tokens_map.json", {"eos_token": {"content": None}}, "eos_token = None is not supported"),
        ("special_tokens_map.json", {"pad_token": "none of the vocabulary"}, "lacks 1 of the tokens"),
    ],
)
def test_other_values_in_the_files(
    ours: Tokenizer, tmp_path: Path, name: str, content: dict[str, Any], message: str | None
) -> None:
    ours.save(tmp_path)
    (tmp_path / name).write_text(json.dumps(content))
    if message is None:  # an empty object is none
        assert Tokenizer.from_folder(tmp_path).pad_token == EOS
        return
    with pytest.raises(ValueError, match=message) as caught:
        Tokenizer.from_folder(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "lacks merges and vocab"),
        ([], "lacks merges and vocab"),
        ({"vocab": [], "merges": []}, "vocab must be an object, and merges a list"),
        ({"vocab": {}, "merges": "a b"}, "vocab must be an object, and merges a list"),
        ({"vocab": {"a": 0}, "merges": [5]}, "the merge 5 is not two tokens"),
        ({"vocab": {"a": 0}, "merges": [["a", None]]}, "the merge 'a None' is not two tokens"),
    ],
)
def test_other_values_in_tokenizer_json(model: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_folder(tmp_path)
