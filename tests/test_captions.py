import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fsasd.data.captions import Captions, anomalous, caption, default_captions
from fsasd.data.csv_table import is_known
from fsasd.data.metadata import Clip, read_clips, read_name, split_label
from fsasd.data.names import MetadataError

EDITIONS = [
    machine
    for path in sorted((Path(__file__).parents[1] / "conf/data").glob("dcase2*.yaml"))
    for role in ("references", "targets")
    for machine in OmegaConf.load(path)[role]
]
DCASE_2023 = [
    *("ToyCar", "ToyTrain", "bearing", "fan", "gearbox", "slider", "valve"),
    *("ToyDrone", "ToyNscale", "ToyTank", "Vacuum", "bandsaw", "grinder", "shaker"),
]
LABEL_TEXT = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]))
# What makes trouble, often; in "xyz" nothing can be mistaken for a word of the sentence.
ANY_LABEL = LABEL_TEXT | st.text("_ .,;:-+xyzK19{}\n\t\r\x85\u2028\xa0")


def clip(machine, label, raw_label):
    return Clip(
        Path("clip.wav"),
        machine,
        label=label,
        attributes=split_label(raw_label),
        raw_label=raw_label,
    )


def assert_is_a_sentence(text, label):
    words = re.findall(r"\w+", text)
    assert text.startswith("This is the ")
    assert text.endswith(".")
    assert not text.endswith((" .", "..", "with."))
    assert "  " not in text
    assert "{" not in text
    assert "None" not in words
    assert [word for word in words if word in ("normal", "anomaly")] == [label]
    assert " with ." not in text
    assert " ," not in text
    assert " and ," not in text


@pytest.mark.parametrize(
    ("machine", "label", "raw_label", "sentence"),
    [
        (
            "ToyCar",
            "anomaly",
            "car_B2_spd_31V_mic_1",
            "This is the anomaly sound of a toy car with model B2 and speed 31V, recorded by a "
            "microphone placed at the position 1.",
        ),
        (
            "grinder",
            "normal",
            "grindstone_2_plate_2",
            "This is the normal sound of a grinding machine with grindstones 2 and metal plates 2.",
        ),
    ],
)
def test_the_captions_of_table_1_are_reproduced(machine, label, raw_label, sentence):
    assert caption(clip(machine, label, raw_label)) == sentence


@pytest.mark.parametrize("label", ["normal", "anomaly"])
def test_every_real_label_string_makes_a_sentence(shared, label):
    table = json.loads((shared / "reference/labels/label_strings_2022_2023.json").read_text())
    labels = {
        (machine, raw_label)
        for machines in table.values()
        for machine, groups in machines.items()
        for group in groups.values()
        for raw_label in group
    }
    with (shared / "reference/labels/dcase2023_train_labels.csv").open() as file:
        features = {row["feature"] for row in csv.DictReader(file)}
    labels |= {(machine, feature) for machine in ("ToyCar", "fan") for feature in features}
    assert len(labels) > 300
    sentences = {caption(clip(machine, label, raw)) for machine, raw in labels}
    # The paper tells clips apart by their captions, so no two labels may read the same.
    same = {raw for _, raw in labels if raw == "noAttribute"}
    assert len(sentences) >= len(labels) - len(same)
    for sentence in sentences:
        assert_is_a_sentence(sentence, label)


def test_every_real_recording_has_a_caption(real):
    for recording in read_clips(real):
        assert_is_a_sentence(caption(recording), recording.label)


@pytest.mark.parametrize("machine", sorted({*DCASE_2023, *EDITIONS}))
def test_every_machine_of_the_challenge_has_a_name_of_its_own(machine):
    name = default_captions().names[machine]
    assert re.fullmatch(r"an? [a-zA-Z0-9][\w -]+", name)
    assert caption(clip(machine, "normal", "")) == f"This is the normal sound of {name}."


def test_machines_are_told_apart_by_their_names():
    names = default_captions().names
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize(
    ("machine", "sentence"),
    [
        ("Press", "This is the normal sound of a Press with foo 3."),
        ("IceMachine", "This is the normal sound of an IceMachine with foo 3."),
    ],
)
def test_an_unknown_machine_and_attribute_are_called_what_they_are(machine, sentence):
    assert caption(clip(machine, "normal", "foo_3")) == sentence


def test_a_machines_own_phrase_comes_before_the_shared_one():
    captions = Captions(
        {"fan": {"name": "a fan", "id": "blade {}"}, "pump": "a pump"}, {"id": "product {}"}
    )
    assert captions(clip("fan", "normal", "id_07")).endswith("of a fan with blade 07.")
    assert captions(clip("pump", "normal", "id_07")).endswith("of a pump with product 07.")


def test_an_entry_without_a_name_keeps_the_machines_own():
    captions = Captions({"fan": {"id": "blade {}"}}, {})
    assert captions(clip("fan", None, "id_07")) == "This is the sound of a fan with blade 07."


def test_three_attributes_are_enumerated():
    text = caption(clip("gearbox", "normal", "volt_1.5_wt_150_id_3"))
    assert text.endswith("a gearbox with voltage 1.5, weight 150 and product 3.")


def test_a_microphone_alone_needs_no_with():
    text = caption(clip("fan", "normal", "mic_1"))
    assert text.endswith("an industrial fan, recorded by a microphone placed at the position 1.")


def test_an_unknown_label_is_left_out():
    assert caption(clip("valve", None, "pat_00")).startswith("This is the sound of a solenoid")


def test_free_text_is_said_as_it_stands():
    text = caption(clip("fan", "normal", "strength_1_ambient"))
    assert text == "This is the normal sound of an industrial fan with strength 1 ambient."


@pytest.mark.parametrize("raw_label", ["", "noAttribute", "noAttribute_", "_", "__", " "])
def test_a_label_that_says_nothing_adds_nothing(raw_label):
    text = caption(clip("fan", "normal", raw_label))
    assert text == "This is the normal sound of an industrial fan."


def visible(text):
    return "".join(c for c in text if c.isprintable() and not c.isspace())


@given(ANY_LABEL)
@example("a.")
@example("speed_.")
@example("mic_,")
@example("vel_1\nvel_2")
@example("spd_\x00_mic_\u2028")
@example("a__b")
@example(",_x")
@example("{}_{}")
def test_any_label_makes_one_whole_sentence_and_loses_nothing(text):
    recording = read_name(f"fan/train/section_00_source_train_normal_0000_{text}.wav")
    sentence = caption(recording)
    name = "This is the normal sound of an industrial fan"
    assert sentence.isprintable()
    assert sentence.startswith(name)
    assert sentence.endswith(".")
    said = sentence.removeprefix(name).removesuffix(".")
    assert not said.endswith((".", " ", " with", " and"))
    assert "  " not in said
    assert not said or said.startswith((" with ", ", recorded by a microphone"))
    assert " with and " not in said
    for value in recording.attributes.values() or [text.replace("_", "")]:
        if is_known(value):
            assert visible(value).strip(".,;:") in visible(said)


def test_every_real_label_of_every_edition_makes_a_sentence(real_labels):
    for _, machine, raw_label in real_labels:
        for label in ("normal", "anomaly"):
            assert_is_a_sentence(caption(clip(machine, label, raw_label)), label)


@given(LABEL_TEXT)
def test_both_captions_of_a_label_differ_in_one_word(text):
    recording = read_name(f"fan/train/section_00_source_train_normal_0000_{text}.wav")
    normal = caption(recording)
    pairs = zip(normal.split(" "), anomalous(normal).split(" "), strict=True)
    assert [pair for pair in pairs if len(set(pair)) > 1] == [("normal", "anomaly")]
    assert anomalous(normal) == caption(replace(recording, label="anomaly"))


def test_a_caption_that_is_not_normal_cannot_be_made_anomalous():
    with pytest.raises(
        ValueError, match=r"no word 'normal' to replace: '.*abnormal sound of a fan"
    ):
        anomalous("This is the abnormal sound of a fan.")


@pytest.mark.parametrize(
    ("machines", "attributes"),
    [({}, {"spd": "speed"}), ({"fan": {"name": "a fan", "spd": "speed"}}, {})],
)
def test_a_phrase_without_a_place_for_the_value_is_refused(machines, attributes):
    with pytest.raises(ValueError, match=r"phrase 'speed' of attribute 'spd' has no \{\}"):
        Captions(machines, attributes)


# Templates


PRESS = Captions({"press": "a press running at {speed} under load {load}"}, {"speed": "speed {}"})


def press(**attributes):
    return Clip(Path("p.wav"), "press", label="normal", attributes=attributes)


def test_a_name_with_places_says_attributes_there_and_not_again():
    text = PRESS(press(oil="40 °C", speed="1200 rpm", load="3 kN"))
    assert text == (
        "This is the normal sound of a press running at 1200 rpm under load 3 kN with oil 40 °C."
    )


def test_braces_in_a_value_are_no_place():
    assert PRESS(press(speed="{load}", load="{x}")) == (
        "This is the normal sound of a press running at {load} under load {x}."
    )


def test_a_clip_without_an_attribute_of_the_template_is_named():
    with pytest.raises(MetadataError, match=r"p\.wav: the caption of press.*\{load\}, found speed"):
        PRESS(press(speed="1"))


def test_a_template_is_checked_against_the_attributes_there_are():
    with pytest.raises(
        MetadataError,
        match=r"'load' is not among the attributes of press, for its caption: loda, speed\. Did you"
        r" mean 'loda'",
    ):
        PRESS.check([press(speed="1", loda="2"), press(speed="1")])
    PRESS.check([press(speed="1"), press(load="2"), Clip(Path("f.wav"), "fan")])


def test_a_template_of_a_machine_without_attributes_is_told_so():
    with pytest.raises(MetadataError, match="attributes of press, for its caption: none"):
        PRESS.check([press()])


def test_a_machine_may_be_a_number():
    said = Captions({101: "a pump at {speed}"}, {})(
        Clip(Path("a"), "101", attributes={"speed": "3"})
    )
    assert said == "This is the sound of a pump at 3."
