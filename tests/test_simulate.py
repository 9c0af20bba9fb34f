import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy.signal import butter, hilbert, sosfiltfilt

from fsasd.data.simulate import (
    MACHINES,
    MICROPHONES,
    Operation,
    band,
    bearing_rates,
    harmonics,
    simulate,
    write_factory,
)

RATE = 16000
FAN = {"spd": "1200", "load": "1", "mic": "1"}
FAULTS = [(name, fault) for name, machine in MACHINES.items() for fault in machine.faults]


def dry(machine, fault="", severity=0.0, seconds=4.0, seed=0, **attributes):
    """The machine itself: no room, no microphone, no factory noise."""
    rng = np.random.default_rng(seed)
    return MACHINES[machine].sound(Operation(attributes, rng, seconds, RATE, fault, severity))


def spectrum(sound):
    return np.fft.rfftfreq(sound.size, 1 / RATE), np.abs(
        np.fft.rfft(sound * np.hanning(sound.size))
    )


def peak(sound, low, high):
    frequencies, level = spectrum(sound)
    inside = (frequencies >= low) & (frequencies <= high)
    return frequencies[inside][level[inside].argmax()]


def envelope(sound, low, high):
    """Squared envelope of a band, for the rate of what excites a resonance there."""
    bandpass = butter(4, [low, high], btype="bandpass", fs=RATE, output="sos")
    return np.abs(hilbert(sosfiltfilt(bandpass, sound))) ** 2


def test_harmonics_above_the_nyquist_frequency_do_not_alias():
    turns = np.arange(RATE) * 3000 / RATE
    np.testing.assert_allclose(harmonics(turns, [1, 1, 1]), harmonics(turns, [1, 1]), atol=1e-12)


def test_noise_has_unit_power_and_the_asked_tilt():
    noise = Operation({}, np.random.default_rng(0), 20.0).noise(20, 7900, slope=-6.02)
    frequencies, level = spectrum(noise)
    power = [np.mean(level[(frequencies > f) & (frequencies < 1.1 * f)] ** 2) for f in (500, 1000)]
    assert noise.std() == pytest.approx(1)
    assert 10 * np.log10(power[1] / power[0]) == pytest.approx(-6.02, abs=0.6)


def test_band_is_3_db_down_at_its_edges():
    gain = 20 * np.log10(band(np.array([100.0, 5000.0]), 100, 5000))
    np.testing.assert_allclose(gain, -3.01, atol=0.01)


@pytest.mark.parametrize("rpm", [1200, 1500, 1800])
def test_fan_is_loudest_at_blade_passing(rpm):
    assert peak(dry("fan", spd=rpm, load="2"), 50, 8000) == pytest.approx(7 * rpm / 60, rel=0.02)


@pytest.mark.parametrize("rpm", [1500, 2400])
def test_pump_is_loudest_at_vane_passing(rpm):
    assert peak(dry("pump", spd=rpm, load="1"), 50, 8000) == pytest.approx(5 * rpm / 60, rel=0.02)


@pytest.mark.parametrize("volt", [2.0, 2.5, 3.0])
def test_gearbox_is_loudest_at_the_gear_mesh(volt):
    mesh = 29 * 400 * volt / 60
    assert peak(dry("gearbox", volt=volt, load="1"), 50, 8000) == pytest.approx(mesh, rel=0.02)


def test_worn_mesh_has_stronger_sidebands():
    def sideband(severity):
        sound = dry("gearbox", "worn_mesh", severity, volt="3.0", load="1")
        frequencies, level = spectrum(sound)
        near = np.abs(np.abs(frequencies - 580) - 20) < 4
        return level[near].max() / level[np.abs(frequencies - 580) < 4].max()

    assert sideband(1.0) > 2 * sideband(0.0)


@pytest.mark.parametrize(
    ("fault", "race", "resonance"), [("outer_race", 0, 3200), ("inner_race", 1, 4300)]
)
@pytest.mark.parametrize("rpm", [1200, 1800])
def test_a_damaged_race_is_struck_at_its_ball_pass_frequency(fault, race, resonance, rpm):
    struck = dry("bearing", fault, severity=1.0, spd=rpm, load="2")
    rate = peak(envelope(struck, resonance - 700, resonance + 700), 55, 400)
    assert rate == pytest.approx(bearing_rates(rpm / 60)[race], rel=0.02)


def test_ball_pass_frequencies_add_up_to_the_number_of_balls():
    assert sum(bearing_rates(25.0)) == pytest.approx(9 * 25)


def test_a_broken_tooth_strikes_once_per_revolution():
    struck = dry("gearbox", "broken_tooth", severity=1.0, volt="3.0", load="1")
    assert peak(envelope(struck, 3300, 4200), 5, 50) == pytest.approx(20, rel=0.02)


def test_a_bad_roller_strikes_at_belt_speed_over_circumference():
    struck = dry("conveyor", "bad_roller", severity=1.0, spd="1.2", load="1")
    rate = peak(envelope(struck, 2600, 3200), 4, 9)
    assert rate == pytest.approx(1.2 / (np.pi * 0.06), rel=0.03)


def test_valve_opens_once_per_period_of_its_pattern():
    opening = envelope(dry("valve", pat="01", volt="24", seconds=7.0), 2300, 2900)
    frames = opening.reshape(-1, 160).max(axis=1)
    assert np.count_nonzero(frames > 0.5 * frames.max()) in range(9, 12)


def test_slider_stands_still_more_often_at_higher_speed():
    def stops(velocity):
        sound = dry("slider", vel=velocity, load="1", seconds=8.0)
        level = envelope(sound, 2000, 5000).reshape(-1, 800).mean(axis=1)
        still = level < 0.1 * np.median(level)
        return np.count_nonzero(np.diff(still.astype(int)) == 1)

    period = {velocity: 2 * 0.4 / (velocity / 1000) + 0.3 for velocity in (300, 600)}
    for velocity, seconds in period.items():
        assert stops(velocity) == pytest.approx(2 * 8.0 / seconds, abs=1)


def test_squeal_comes_in_short_episodes_and_dry_friction_stays():
    def share_of_energy_in_the_loudest_tenth(machine, fault, **attributes):
        extra = dry(machine, fault, 1.0, **attributes) - dry(machine, **attributes)
        frames = np.sort((extra**2).reshape(-1, 800).sum(axis=1))
        return frames[-frames.size // 10 :].sum() / frames.sum()

    squeal = share_of_energy_in_the_loudest_tenth("conveyor", "squeal", spd="0.8", load="1")
    friction = share_of_energy_in_the_loudest_tenth("slider", "dry_friction", vel="450", load="1")
    assert squeal > 0.4
    assert friction < 0.2


@pytest.mark.parametrize(("machine", "fault"), FAULTS)
def test_a_fault_grows_with_its_severity(machine, fault):
    point = MACHINES[machine].operating_point("source", 0)
    normal, mild, grave = (dry(machine, fault, severity, **point) for severity in (0, 0.2, 1.0))
    assert 0.05 < normal.std() < 3
    assert 0 < (mild - normal).std() < (grave - normal).std()


@pytest.mark.parametrize("machine", MACHINES)
def test_clips_of_both_domains_and_labels_stay_within_full_scale(machine):
    for domain in ("source", "target"):
        point = MACHINES[machine].operating_point(domain, 1)
        for label in ("normal", "anomaly"):
            rng = np.random.default_rng(3)
            clip = simulate(machine, point, label, rng, 1.0, domain=domain)
            assert clip.dtype == np.float32
            assert clip.shape == (RATE,)
            assert 0.001 < clip.std() < 0.3
            assert np.mean(np.abs(clip) == 1) < 0.001


def test_domains_share_keys_but_not_operating_points():
    for machine in MACHINES.values():
        assert list(machine.source) == list(machine.target)
        points = {
            domain: {tuple(machine.operating_point(domain, i).values()) for i in range(50)}
            for domain in ("source", "target")
        }
        assert not points["source"] & points["target"]


def test_a_far_microphone_is_quieter_and_duller():
    noise = np.random.default_rng(0).standard_normal(RATE)

    def power(position):
        frequencies, level = spectrum(MICROPHONES[position].record(noise, RATE))
        return np.sum(level**2), np.sum(level[frequencies > 5000] ** 2)

    (near, near_treble), (far, far_treble) = power("1"), power("3")
    assert far < near / 2
    assert far_treble / far < 0.5 * near_treble / near


def test_the_target_domain_is_noisier():
    quiet = {"pat": "00", "volt": "24", "mic": "2"}
    source, target = (
        simulate("valve", quiet, "normal", np.random.default_rng(0), 1.0, domain=domain)
        for domain in ("source", "target")
    )
    assert np.median(np.abs(target)) > np.median(np.abs(source))


SMALL = {"seconds": 0.5, "train_clips": 4, "target_domain_clips": 1, "test_clips": 2}


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    root = tmp_path_factory.mktemp("simulate") / "factory"
    return write_factory(root, references=["fan", "valve"], targets=["pump"], **SMALL)


def contents(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def ground_truth(root, column):
    path = root / f"ground_truth/ground_truth_{column}/ground_truth_pump_section_00_test.csv"
    return pd.read_csv(path, header=None, index_col=0)[1]


def test_layout(factory):
    folders = {str(p.relative_to(factory)) for p in factory.glob("*/*")}
    assert folders == {"dev_data/fan", "dev_data/valve", "eval_data/pump"} | {
        f"ground_truth/ground_truth_{column}" for column in ("attributes", "data", "domain")
    }
    assert not factory.with_name("factory.partial").exists()
    assert {p.name for p in (factory / "dev_data/fan/train").iterdir()} == {
        "section_00_source_train_normal_0000_spd_1200_load_1_mic_1.wav",
        "section_00_source_train_normal_0001_spd_1500_load_1_mic_1.wav",
        "section_00_source_train_normal_0002_spd_1800_load_1_mic_1.wav",
        "section_00_target_train_normal_0000_spd_1350_load_2_mic_2.wav",
    }
    test_names = [p.name.split("_spd")[0] for p in (factory / "dev_data/fan/test").iterdir()]
    assert sorted(test_names) == [
        f"section_00_{domain}_test_{label}_000{index}"
        for domain in ("source", "target")
        for label in ("anomaly", "normal")
        for index in range(2)
    ]


def test_clips_are_16_bit_mono_at_16_khz(factory):
    for path in factory.rglob("*.wav"):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert info.frames == 8000


def test_attributes_table_of_a_reference_lists_every_clip(factory):
    table = pd.read_csv(factory / "dev_data/fan/attributes_00.csv", dtype=str)
    assert list(table) == ["file_name", "d1p", "d1v", "d2p", "d2v", "d3p", "d3v"]
    assert len(table) == 4 + 8
    assert all((factory / "dev_data" / name).is_file() for name in table["file_name"])
    for row in table.itertuples(index=False):
        assert row[0].removesuffix(".wav").endswith("_".join(row[1:]))


def test_attributes_table_of_a_target_tells_nothing_about_its_test(factory):
    table = pd.read_csv(factory / "eval_data/pump/attributes_00.csv")
    assert len(table) == 4
    assert table["file_name"].str.startswith("pump/train/").all()


def test_ground_truth_answers_for_every_anonymous_clip(factory):
    names = sorted(p.name for p in (factory / "eval_data/pump/test").iterdir())
    assert names == [f"section_00_000{index}.wav" for index in range(8)]
    label, domain, truth = (ground_truth(factory, c) for c in ("data", "domain", "attributes"))
    assert list(label.index) == list(domain.index) == list(truth.index) == names
    parts = truth.str.split("_", expand=True)
    assert (label == (parts[4] == "anomaly")).all()
    assert (domain == (parts[2] == "target")).all()
    assert label.groupby(domain).sum().tolist() == [2, 2]
    assert not truth.is_monotonic_increasing


def test_same_seed_same_bytes(factory, tmp_path):
    again = write_factory(
        tmp_path / "again", references=["fan", "valve"], targets=["pump"], **SMALL
    )
    assert contents(again) == contents(factory)


def test_another_seed_other_clips(factory, tmp_path):
    other = write_factory(tmp_path / "other", seed=1, references=["fan"], targets=[], **SMALL)
    sounds = {k: v for k, v in contents(other).items() if k.endswith(".wav")}
    assert all(contents(factory)[name] != sound for name, sound in sounds.items())
    assert not (other / "eval_data").exists()


def test_a_clip_does_not_depend_on_how_many_there_are(factory, tmp_path):
    counts = SMALL | {"train_clips": 7, "target_domain_clips": 2, "test_clips": 3}
    larger = write_factory(tmp_path / "larger", references=["fan"], targets=["pump"], **counts)

    def named(root):
        """Contents of the clips by their full name, that of the ground truth where hidden."""
        truth = ground_truth(root, "attributes")
        clips = {p.name: p.read_bytes() for p in root.glob("dev_data/fan/*/*.wav")}
        clips |= {p.name: p.read_bytes() for p in root.glob("eval_data/pump/train/*.wav")}
        hidden = {f"{name}.wav": root / "eval_data/pump/test" / at for at, name in truth.items()}
        return clips | {name: path.read_bytes() for name, path in hidden.items()}

    small, large = named(factory), named(larger)
    assert len(small) == 24
    assert small.items() <= large.items()


def test_what_an_interrupted_run_left_is_not_mixed_in(tmp_path):
    leftover = tmp_path / "factory.partial/dev_data/fan/train/leftover.wav"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    root = write_factory(tmp_path / "factory", references=["fan"], targets=[], **SMALL)
    assert not list(root.rglob("leftover.wav"))
    assert not leftover.exists()


def test_an_existing_folder_is_left_alone(tmp_path):
    with pytest.raises(FileExistsError, match=r"exists: delete it, or write the factory elsewhere"):
        write_factory(tmp_path, references=["fan"], targets=[])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"targets": ["bering"]},
            r"no simulated machine 'bering', known are fan.*mean 'bearing'\?",
        ),
        ({"targets": ["xyz"]}, r"no simulated machine 'xyz', known are .*slider$"),
        ({"references": ["fan"], "targets": ["fan"]}, r"fan is named twice.*references \['fan'\]"),
        ({"references": [], "targets": []}, r"at least one machine"),
        ({"seed": -1}, r"seed must not be negative, got -1"),
        ({"train_clips": 0}, r"train_clips must be at least 1, got 0"),
        ({"target_domain_clips": 61}, r"part of the 60 train_clips, so 0 to 60, got 61"),
        ({"target_domain_clips": -1}, r"so 0 to 60, got -1"),
        ({"test_clips": 0}, r"test_clips must be at least 1, got 0"),
        ({"seconds": 0.1}, r"seconds must be finite and at least 0.5, got 0.1"),
        ({"seconds": float("nan")}, r"seconds must be finite and at least 0.5, got nan"),
    ],
)
def test_an_impossible_factory_is_refused_before_anything_is_written(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_factory(tmp_path / "factory", **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"machine": "fann"}, r"no simulated machine 'fann'.*did you mean 'fan'\?"),
        ({"attributes": {"spd": "1200"}}, r"\['spd', 'load', 'mic'\], got \['spd'\]"),
        ({"attributes": FAN | {"spd": "99"}}, r"spd 1200, 1500, 1800, 1350, got '99'"),
        ({"label": "broken"}, r"label must be one of \('normal', 'anomaly'\), got 'broken'"),
        ({"domain": "moon"}, r"domain must be one of \('source', 'target'\), got 'moon'"),
        ({"seconds": 0.0}, r"at least 0.5, got 0.0"),
        ({"sample_rate": 8000}, r"sample_rate must be at least 16000, got 8000"),
    ],
)
def test_a_recording_that_cannot_be_is_refused(change, message):
    arguments = {"machine": "fan", "attributes": FAN, "label": "normal", "seconds": 1.0} | change
    with pytest.raises(ValueError, match=message):
        simulate(rng=np.random.default_rng(0), **arguments)
