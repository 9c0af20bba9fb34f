import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import butter, hilbert, sosfiltfilt

from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import read_clips
from fsasd.data.simulate import (
    HALLS,
    MACHINES,
    MICROPHONES,
    ROOM,
    SKF_6203,
    SKF_6205,
    Bearing,
    Defect,
    Hall,
    Operation,
    Session,
    band,
    draw_defect,
    harmonics,
    simulate,
    write_factory,
)

RATE = 16000
FAN = {"spd": "1200", "load": "1", "mic": "1"}
VALVE = {"pat": "00", "volt": "24", "mic": "1"}
FAULTS = [(name, fault) for name, machine in MACHINES.items() for fault in machine.faults]


def having(*faults):
    """Every machine with one of these faults, and the fault."""
    return [pair for pair in FAULTS if pair[1] in faults]


def point(machine, index=1):
    return MACHINES[machine].operating_point("source", index)


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


def line(sound, frequency):
    """Strength of a line that wanders by no more than 1.5 % (and one bin)."""
    frequencies, level = spectrum(sound - sound.mean())
    reach = 0.015 * frequency + RATE / sound.size
    return np.sqrt(np.sum(level[np.abs(frequencies - frequency) < reach] ** 2)) / sound.size


def prominence(sound, frequency):
    """Strength of a line over what is beside it: at 0.9 and 1.1 times."""
    return line(sound, frequency) / np.mean([line(sound, k * frequency) for k in (0.9, 1.1)])


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


@given(st.integers(5, 20), st.floats(2, 20), st.floats(25, 100), st.floats(0, 40))
def test_bearing_rates_hang_together(balls, ball, pitch, angle):
    orders = Bearing(balls, ball, pitch, angle).orders
    assert orders["bpfo"] + orders["bpfi"] == pytest.approx(balls)
    assert orders["bpfo"] == pytest.approx(balls * orders["ftf"])
    assert orders["bpfo"] < orders["bpfi"]
    assert 0 < orders["ftf"] < 0.5


@pytest.mark.parametrize(
    ("bearing", "published"),
    [
        (SKF_6205, {"bpfi": 5.4152, "bpfo": 3.5848, "ftf": 0.39828, "2 bsf": 4.7135}),
        (SKF_6203, {"bpfi": 4.9469, "bpfo": 3.0530, "ftf": 0.3817, "2 bsf": 3.9874}),
    ],
)
def test_bearing_rates_are_those_that_case_western_publishes(bearing, published):
    orders = bearing.orders | {"2 bsf": 2 * bearing.orders["bsf"]}
    for rate, order in published.items():
        assert orders[rate] == pytest.approx(order, rel=1e-3)


@pytest.mark.parametrize("rpm", [1200, 1500, 1800])
def test_fan_is_loudest_at_blade_passing(rpm):
    assert peak(dry("fan", spd=rpm, load="2"), 50, 8000) == pytest.approx(7 * rpm / 60, rel=0.02)


@pytest.mark.parametrize("rpm", [1500, 2400])
def test_pump_is_loudest_at_vane_passing(rpm):
    assert peak(dry("pump", spd=rpm, load="1"), 50, 8000) == pytest.approx(5 * rpm / 60, rel=0.02)


@pytest.mark.parametrize("volt", ["2.0", "2.5", "3.0"])
def test_gearbox_is_loudest_at_the_gear_mesh(volt):
    mesh = 29 * 400 * float(volt) / 60
    assert peak(dry("gearbox", volt=volt, load="1"), 50, 8000) == pytest.approx(mesh, rel=0.02)


@pytest.mark.parametrize("teeth", ["19", "21", "23"])
def test_the_mesh_of_a_hoist_counts_its_teeth(teeth):
    sound = dry("hoist", spd="1200", load="2", teeth=teeth)
    assert peak(sound, 300, 8000) == pytest.approx(20 * int(teeth), rel=0.02)


def test_a_motor_hums_at_twice_the_frequency_of_its_supply():
    for load, slip in (("1", 0.02), ("2", 0.04)):
        hum = 4 * 25 / (1 - slip)
        assert peak(dry("motor", spd="1500", load=load), 90, 120) == pytest.approx(hum, rel=0.01)


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


# What each kind of fault does, wherever it occurs.


def over(machine, fault, measure):
    """A measure of the dry sound at severity 0, 0.5 and 1."""
    return [
        measure(dry(machine, fault, severity, seconds=8.0, **point(machine)))
        for severity in (0.0, 0.5, 1.0)
    ]


@pytest.mark.parametrize(("machine", "fault"), having("imbalance"))
def test_imbalance_raises_the_line_at_the_shaft_rate(machine, fault):
    shaft = MACHINES[machine].rates(point(machine))["shaft"]
    first, second = (over(machine, fault, lambda s, k=k: line(s, k * shaft)) for k in (1, 2))
    assert first[2] > 2 * first[1] > 2 * first[0]
    assert first[2] - first[0] > 1.5 * (second[2] - second[0])


@pytest.mark.parametrize(("machine", "fault"), having("misalignment"))
def test_misalignment_raises_twice_the_shaft_rate_above_once(machine, fault):
    shaft = MACHINES[machine].rates(point(machine))["shaft"]
    first, second = (over(machine, fault, lambda s, k=k: line(s, k * shaft)) for k in (1, 2))
    assert second[2] > 2 * second[1] > 2 * second[0]
    assert second[2] > 1.5 * first[2]


@pytest.mark.parametrize(("machine", "fault"), having("looseness"))
@pytest.mark.parametrize("order", [0.5, 1.5, 2.5])
def test_looseness_brings_half_orders(machine, fault, order):
    rate = order * MACHINES[machine].rates(point(machine))["shaft"]
    healthy, half, loose = over(machine, fault, lambda s: line(s, rate))
    assert loose > 1.5 * half > 1.5 * healthy


@pytest.mark.parametrize(("machine", "fault"), having("outer_race", "inner_race", "ball"))
def test_a_damaged_bearing_rings_at_the_rate_of_its_geometry(machine, fault):
    rate = MACHINES[machine].fault_rate(fault, point(machine))
    (bearing,) = (p for p in MACHINES[machine].parameters() if p["part"] == "RollingBearing")
    low, high = bearing["resonance"] - 600, bearing["resonance"] + 600
    healthy, half, grave = over(machine, fault, lambda s: line(envelope(s, low, high), rate))
    assert grave > 2 * half > 2 * healthy
    grave = dry(machine, fault, 1.0, seconds=8.0, **point(machine))
    healthy = dry(machine, seconds=8.0, **point(machine))
    assert prominence(envelope(grave, low, high), rate) > 3
    assert prominence(envelope(healthy, low, high), rate) < 2


def test_an_inner_race_passes_the_loaded_zone_once_a_turn():
    """Lines at the shaft's rate either side of BPFI; an outer race, always loaded, has none."""
    rates = MACHINES["bearing"].rates(point("bearing"))

    def sideband(fault, rate):
        squared = envelope(dry("bearing", fault, 1.0, seconds=8.0, **point("bearing")), 2600, 3800)
        return line(squared, rate + rates["shaft"]) / line(squared, rate)

    assert sideband("inner_race", rates["bpfi"]) > 0.3
    assert sideband("outer_race", rates["bpfo"]) < 0.15


@pytest.mark.parametrize(("machine", "fault"), having("broken_tooth"))
def test_a_broken_tooth_spreads_sidebands_at_the_shaft_rate_about_the_mesh(machine, fault):
    rates = MACHINES[machine].rates(point(machine))

    def sidebands(sound):
        beside = [rates["mesh"] + k * rates["pinion"] for k in (-4, -3, 3, 4)]
        return sum(line(sound, f) for f in beside) / line(sound, rates["mesh"])

    healthy, half, broken = over(machine, fault, sidebands)
    assert broken > 1.5 * half > 1.5 * healthy


@pytest.mark.parametrize(("machine", "fault"), having("broken_tooth"))
def test_a_broken_tooth_strikes_once_a_turn(machine, fault):
    struck = dry(machine, fault, 1.0, **point(machine))
    rate = MACHINES[machine].rates(point(machine))["pinion"]
    assert peak(envelope(struck, 2600, 4200), 5, 60) == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize(("machine", "fault"), having("tooth_wear"))
def test_wear_raises_the_harmonics_of_the_mesh(machine, fault):
    mesh = MACHINES[machine].rates(point(machine))["mesh"]
    ratio = over(machine, fault, lambda s: line(s, 2 * mesh) / line(s, mesh))
    assert ratio[2] > 1.3 * ratio[1] > 1.3 * ratio[0]


@pytest.mark.parametrize(("machine", "fault"), having("cavitation"))
def test_cavitation_is_noise_modulated_at_blade_pass(machine, fault):
    rate = MACHINES[machine].fault_rate(fault, point(machine))
    level = over(machine, fault, lambda s: envelope(s, 2000, 7000).mean())
    assert level[2] > 1.5 * level[1] > 1.5 * level[0]
    cavitating = envelope(dry(machine, fault, 1.0, **point(machine)), 2000, 7000)
    assert prominence(cavitating, rate) > 5
    assert prominence(envelope(dry(machine, **point(machine)), 2000, 7000), rate) < 2


@pytest.mark.parametrize(("machine", "fault"), [("fan", "blockage")])
def test_a_blocked_fan_stalls_in_cells_slower_than_its_shaft(machine, fault):
    rate = MACHINES[machine].fault_rate(fault, point(machine))
    assert rate == pytest.approx(0.45 * 25)
    level = over(machine, fault, lambda s: line(envelope(s, 200, 800), rate))
    assert level[2] > 2 * level[1] > 2 * level[0]
    blade = MACHINES[machine].rates(point(machine))["blade_pass"]
    tone = over(machine, "blockage", lambda s: line(s, 2 * blade))
    assert tone[2] < 0.8 * tone[0]


@pytest.mark.parametrize(("machine", "fault"), having("chipped_blade"))
def test_a_chipped_blade_gives_shaft_lines_between_those_of_the_blades(machine, fault):
    rates = MACHINES[machine].rates(point(machine))
    between = rates["blade_pass"] + rates["wheel"]
    level = over(machine, fault, lambda s: line(s, between))
    assert level[2] > 1.5 * level[1] > 1.5 * level[0]


@pytest.mark.parametrize(("machine", "fault"), having("broken_bar"))
def test_a_broken_bar_makes_the_bars_beat_at_the_pole_pass_rate(machine, fault):
    rates = MACHINES[machine].rates(point(machine))

    def beat(sound):
        bars = envelope(sound, rates["bar_pass"] - 30, rates["bar_pass"] + 30)
        return line(bars, rates["pole_pass"])

    healthy, half, broken = over(machine, fault, beat)
    assert broken > 2 * half > 2 * healthy


@pytest.mark.parametrize(("machine", "fault"), having("belt_slip"))
def test_a_slipping_belt_squeals_in_episodes_in_which_the_machine_falls_back(machine, fault):
    model, attributes = MACHINES[machine], point(machine)

    def motion(severity):
        run = Operation(attributes, np.random.default_rng(0), 4.0, RATE, fault, severity)
        return model.move(run, model.rate(attributes), model.rated)

    healthy, slipping = motion(0.0), motion(1.0)
    speed = np.diff(slipping.turns) / np.diff(healthy.turns)
    assert speed.min() < 0.95
    assert speed.max() == pytest.approx(1, abs=1e-3)
    assert np.corrcoef(speed, slipping.slip[1:])[0, 1] < -0.999
    squeal = envelope(dry(machine, fault, 1.0, **attributes), 2500, 7000)
    slips = slipping.slip > 0.3
    assert squeal[slips].mean() > 4 * squeal[slipping.slip < 0.01].mean()


@pytest.mark.parametrize(("machine", "fault"), having("leak"))
def test_a_leak_hisses_without_a_line(machine, fault):
    low, high = 3000, 7000
    level = over(machine, fault, lambda s: envelope(s, low, high).mean())
    assert level[2] > 1.5 * level[1] > 1.5 * level[0]
    assert MACHINES[machine].fault_rate(fault, point(machine)) is None
    hiss = dry(machine, fault, 1.0, **point(machine)) - dry(machine, **point(machine))
    frequencies, power = spectrum(hiss)
    inside = power[(frequencies > low) & (frequencies < high)]
    assert inside.max() < 6 * np.median(inside)  # Rayleigh: 5 in 16,000 bins of noise


@pytest.mark.parametrize(("machine", "fault"), [("conveyor", "flat_spot"), ("compressor", "knock")])
def test_a_flat_or_a_knock_strikes_at_its_rate(machine, fault):
    extra = dry(machine, fault, 1.0, seconds=8.0, **point(machine)) - dry(
        machine, seconds=8.0, **point(machine)
    )
    blows = envelope(extra, 1000, 4000)
    rate = MACHINES[machine].fault_rate(fault, point(machine))
    assert prominence(blows, rate) > 3


def test_a_dent_in_the_rail_is_struck_on_the_way_out_and_on_the_way_back():
    attributes = point("slider")
    extra = dry("slider", "flat_spot", 1.0, **attributes) - dry("slider", **attributes)
    hits = np.flatnonzero(np.abs(extra) > 0.5 * np.abs(extra).max())
    starts = hits[np.diff(hits, prepend=-RATE) > 0.2 * RATE] / RATE
    cycle = 1 / MACHINES["slider"].rates(attributes)["cycle"]
    assert len(starts) in (3, 4)
    assert np.diff(starts)[:2].sum() == pytest.approx(cycle, rel=0.02)


def test_stick_slip_is_a_sawtooth_in_episodes_while_the_carriage_moves():
    attributes = point("slider")
    extra = dry("slider", "stick_slip", 1.0, **attributes) - dry("slider", **attributes)
    assert peak(extra, 100, 8000) == pytest.approx(340, rel=0.1)
    frames = np.sort((extra**2).reshape(-1, 800).sum(axis=1))
    assert frames[-frames.size // 4 :].sum() / frames.sum() > 0.4
    run = Operation(attributes, np.random.default_rng(0), 4.0)
    model = MACHINES["slider"]
    moving = model.move(run, model.rate(attributes), model.rated).moving
    assert np.all(extra[moving == 0] == 0)


@pytest.mark.parametrize(("machine", "fault"), having("dry_friction"))
def test_dry_friction_is_steady_noise(machine, fault):
    extra = dry(machine, fault, 1.0, **point(machine)) - dry(machine, **point(machine))
    frames = np.sort((extra**2).reshape(-1, 800).sum(axis=1))
    assert frames[-frames.size // 10 :].sum() / frames.sum() < 0.2
    assert envelope(extra, 3000, 6000).mean() > 10 * envelope(extra, 100, 1000).mean()


def test_glazed_grains_make_the_workpiece_sing():
    level = over("grinder", "glazing", lambda s: line(s, 2400))
    assert level[2] > 2 * level[1] > 2 * level[0]


def test_a_rattling_valve_bounces_after_it_closes():
    attributes = {"pat": "00", "volt": "24"}
    extra = dry("valve", "rattle", 1.0, **attributes) - dry("valve", **attributes)
    bounces = envelope(extra, 2900, 3700).reshape(-1, 160).max(axis=1)
    assert np.count_nonzero(bounces > 0.05 * bounces.max()) > 3 * 4


def test_a_blocked_valve_whistles_while_it_is_open():
    attributes = {"pat": "01", "volt": "24"}  # open for 0.2 of 0.7 seconds
    extra = dry("valve", "blockage", 1.0, seconds=7.0, **attributes) - dry(
        "valve", seconds=7.0, **attributes
    )
    assert np.mean(extra != 0) == pytest.approx(0.2 / 0.7, abs=0.05)
    assert peak(extra, 500, 8000) == pytest.approx(2100, rel=0.05)


@pytest.mark.parametrize(("machine", "fault"), having("double_blow", "debris", "arcing"))
def test_a_fault_that_comes_and_goes_leaves_most_of_a_clip_as_it_was(machine, fault):
    extra = dry(machine, fault, 1.0, **point(machine)) - dry(machine, **point(machine))
    frames = np.sort((extra**2).reshape(-1, 320).sum(axis=1))
    assert frames[-frames.size // 5 :].sum() / frames.sum() > 0.7
    assert frames[-1] > 100 * (np.median(frames) + 1e-9) or np.median(frames) == 0


def test_a_ram_with_play_strikes_again_within_120_milliseconds():
    attributes = {"spm": "60", "load": "1"}
    blows = np.flatnonzero(np.abs(np.diff(dry("press", **attributes))) > 2)
    extra = dry("press", "double_blow", 1.0, **attributes) - dry("press", **attributes)
    again = np.flatnonzero(np.abs(extra) > 0.5 * np.abs(extra).max())[0]
    before = blows[blows < again]
    late = (again - before[np.diff(before, prepend=-RATE) > RATE / 4][-1]) / RATE
    assert 0.05 < late < 0.13


@pytest.mark.parametrize("machine", [name for name in MACHINES if MACHINES[name].strokes])
def test_a_machine_that_works_in_strokes_rests_between_them(machine):
    period, share = MACHINES[machine].strokes
    sound = dry(machine, seconds=5 * period, **point(machine))
    assert np.mean(sound == 0) == pytest.approx(1 - share, abs=0.1)


# The halls around machines, and the sessions in which they are recorded.


def hall_noise(hall, seconds=4.0, seed=0, target=False):
    return hall.sound(Operation({}, np.random.default_rng(seed), seconds), target=target)


def test_every_machine_stands_in_a_hall():
    assert {machine.hall for machine in MACHINES.values()} == set(HALLS)


def test_the_plant_is_twice_as_loud_as_the_workshop_and_that_as_the_laboratory():
    """By 6 dB; of twenty other draws of five seeds the closest are 2.7 and 3.0 times as loud."""
    median = {
        name: np.median([hall_noise(hall, 1.0, seed).std() for seed in range(5)])
        for name, hall in HALLS.items()
    }
    assert median["plant"] > 2 * median["workshop"]
    assert median["workshop"] > 2 * median["laboratory"]


@pytest.mark.parametrize("event", ["hammering", "vehicles", "voices"])
def test_events_make_the_noise_of_a_hall_unsteady(event):
    def unsteadiness(hall):
        frames = [hall_noise(hall, seed=s).reshape(-1, 1600).std(axis=1) for s in range(4)]
        return np.mean([frame.max() / np.median(frame) for frame in frames])

    quiet = Hall(level=1.0, hum=0.0)
    assert unsteadiness(replace(quiet, **{event: 1.0})) > 1.2 * unsteadiness(quiet)


def test_a_session_sets_the_level_the_background_and_the_microphones_place():
    def made(**session):
        rng = np.random.default_rng(0)
        return simulate("valve", VALVE, "normal", rng, 1.0, session=Session(**session))

    usual = made()
    np.testing.assert_allclose(made(gain=-6.0), usual * 10 ** (-6 / 20), rtol=1e-4, atol=1e-6)
    assert made(background=6.0).std() > 1.3 * usual.std()
    moved = made(moved=(0.1, 0.1, 0.0))
    assert 0.5 < np.corrcoef(moved, usual)[0, 1] < 0.999


def test_clips_of_a_session_have_its_level(tmp_path):
    """The spread of levels within sessions of five clips is below that of all clips."""
    counts = {"train_clips": 40, "target_domain_clips": 0, "test_clips": 1, "seconds": 0.5}
    root = write_factory(tmp_path / "factory", references=["turbine"], targets=[], **counts)
    paths = sorted((root / "dev_data/turbine/train").iterdir())
    level = pd.Series([20 * np.log10(soundfile.read(path)[0].std()) for path in paths])
    state = [path.name.split("_spd_")[1] for path in paths]
    sessions = (level - level.groupby(state).transform("mean")).to_numpy().reshape(-1, 5)
    assert sessions.mean(axis=1).std() > 1.3 * sessions.std(axis=1).mean() / 5**0.5


# What holds for every fault.


@pytest.mark.parametrize(("machine", "fault"), FAULTS)
def test_a_fault_belongs_to_one_part_and_shows_at_one_of_its_rates(machine, fault):
    model = MACHINES[machine]
    (part,) = (part for part in model.parts if fault in part.faults)
    rate = model.fault_rate(fault, point(machine))
    assert (rate is None) == (part.faults[fault] == "")
    assert rate is None or 0 < rate < RATE / 2


@pytest.mark.parametrize(("machine", "fault"), FAULTS)
def test_a_fault_grows_with_its_severity_from_the_normal_sound(machine, fault):
    attributes = point(machine, 0)
    normal = dry(machine, **attributes)
    none, mild, grave = (dry(machine, fault, s, **attributes) for s in (0.0, 0.2, 1.0))
    assert 0.05 < normal.std() < 3
    np.testing.assert_array_equal(none, normal)
    assert 0 < (mild - normal).std() < (grave - normal).std()


@pytest.mark.nightly
@pytest.mark.parametrize("machine", MACHINES)
def test_faults_are_hard_to_hear_at_severity_a_tenth_and_easy_at_one(machine):
    """In log-mel's mean or maximum over time, over its spread among normal clips, in the target.

    In nine of ten bands a mild fault changes a clip by less than half of what two normal clips
    differ by: a quarter at most, of four seeds. At severity 0.4, faults of a quarter of the
    machines exceed the half.
    """
    attributes = MACHINES[machine].operating_point("target", 1)

    def heard(condition, seed=0):
        rng = np.random.default_rng(seed)
        clip = simulate(machine, attributes, condition, rng, 2.0, domain="target")
        mel = LogMel.twfr()(clip)
        return np.concatenate([mel.mean(axis=1), mel.max(axis=1)])

    normal = np.array([heard("normal", seed) for seed in range(8)])
    spread = normal.std(axis=0)
    pairs = [np.abs(one - other) / spread for one, other in combinations(normal, 2)]
    apart = np.median(np.quantile(pairs, 0.9, axis=1))
    for fault in MACHINES[machine].faults:
        change = [
            np.abs(heard(Defect(fault, severity)) - normal[0]) / spread
            for severity in (0.1, 0.4, 1.0)
        ]
        mild, half, grave = np.quantile(change, 0.9, axis=1)
        assert mild < half < grave, fault
        assert mild < apart / 2, fault
        assert change[-1].max() > 1, fault


def test_a_defect_is_heard_in_the_same_recording():
    def made(condition):
        return simulate("fan", FAN, condition, np.random.default_rng(5), 1.0)

    np.testing.assert_array_equal(made("normal"), made(Defect("imbalance", 0.0)))
    extra = made(Defect("imbalance", 1.0)) - made("normal")
    assert peak(extra, 10, 8000) in (20, 40, 60)  # the microphone hears little below 40 Hz


def test_an_anomaly_is_one_of_the_machines_defects():
    drawn = [draw_defect("fan", np.random.default_rng(seed)) for seed in range(60)]
    assert {defect.fault for defect in drawn} == set(MACHINES["fan"].faults)
    severity = [defect.severity for defect in drawn]
    assert 0.1 <= min(severity) < 0.2 < 0.9 < max(severity) <= 1
    anomaly, normal = (
        simulate("fan", FAN, label, np.random.default_rng(5), 1.0)
        for label in ("anomaly", "normal")
    )
    assert (anomaly != normal).any()


@pytest.mark.parametrize("machine", MACHINES)
def test_clips_of_both_domains_and_labels_stay_within_full_scale(machine):
    for domain in ("source", "target"):
        for label in ("normal", "anomaly"):
            attributes = MACHINES[machine].operating_point(domain, 1)
            rng = np.random.default_rng(3)
            clip = simulate(machine, attributes, label, rng, 1.0, domain=domain)
            assert clip.dtype == np.float32
            assert clip.shape == (RATE,)
            assert 0.001 < clip.std() < 0.3
            assert np.mean(np.abs(clip) == 1) < 0.001


def test_there_are_machines_and_faults_enough():
    assert len(MACHINES) >= 20
    assert len({fault for _, fault in FAULTS}) >= 8
    shared = {fault for _, fault in FAULTS if len(having(fault)) > 1}
    assert len(shared) >= 8


def test_domains_share_keys_but_not_operating_points():
    for machine in MACHINES.values():
        assert list(machine.source) == list(machine.target)
        points = {
            domain: {tuple(machine.operating_point(domain, i).values()) for i in range(50)}
            for domain in ("source", "target")
        }
        assert not points["source"] & points["target"]
        assert len(points["source"]) >= 3


def test_the_page_on_the_factory_names_every_machine_and_fault():
    page = (Path(__file__).parents[1] / "docs" / "explanation" / "factory.md").read_text("utf-8")
    for machine, model in MACHINES.items():
        (row,) = (row for row in page.splitlines() if row.startswith(f"| {machine} |"))
        named = row.split("|")[-2].split(",")
        assert {fault.strip() for fault in named} == {f"`{fault}`" for fault in model.faults}


# The room and its microphones.


def test_sound_decays_in_the_room_by_60_db_in_the_reverberation_time():
    """Schroeder's integral from -5 to -25 dB; slower than Eyring's diffuse field, never faster."""
    response = ROOM.response((1.0, 1.2, 1.1), (4.0, 3.0, 1.7), RATE)
    decay = 10 * np.log10(np.cumsum(response[::-1] ** 2)[::-1] / np.sum(response**2))
    at = [np.flatnonzero(decay < level)[0] / RATE for level in (-5, -25)]
    assert 0.9 < 3 * (at[1] - at[0]) / ROOM.reverberation < 1.7


def test_source_and_microphone_can_change_places():
    here, there = (1.0, 1.2, 1.1), (4.0, 3.0, 1.7)
    np.testing.assert_allclose(
        ROOM.response(here, there, RATE), ROOM.response(there, here, RATE), atol=1e-9
    )


def test_the_first_reflection_is_that_of_the_nearest_wall():
    response = ROOM.response((3.0, 2.0, 0.5), (4.0, 2.0, 0.5), RATE)
    direct, first = np.flatnonzero(response)[:2]
    assert direct == round(1.0 / 343 * RATE)
    assert first == round(np.hypot(1.0, 1.0) / 343 * RATE)  # over the floor, half a metre below
    assert response[first] == pytest.approx(ROOM.reflection / np.hypot(1.0, 1.0))


def test_a_far_microphone_is_quieter_and_duller():
    noise = np.random.default_rng(0).standard_normal(RATE)

    def power(position):
        heard = MICROPHONES[position].record(noise, np.zeros(RATE), RATE)
        frequencies, level = spectrum(heard)
        return np.sum(level**2), np.sum(level[frequencies > 5000] ** 2)

    (near, near_treble), (far, far_treble) = power("1"), power("3")
    assert far < near / 2
    assert far_treble / far < 0.5 * near_treble / near
    assert MICROPHONES["1"].distance < MICROPHONES["2"].distance < MICROPHONES["3"].distance


def test_the_target_domain_is_noisier():
    quiet = {"pat": "00", "volt": "24", "mic": "2"}
    source, target = (
        np.median(
            [
                np.median(
                    np.abs(
                        simulate("valve", quiet, "normal", np.random.default_rng(i), 1.0, domain=d)
                    )
                )
                for i in range(8)
            ]
        )
        for d in ("source", "target")
    )
    assert target > source


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
    assert {p.name for p in factory.iterdir() if p.is_file()} == {"truth.csv", "factory.json"}
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


def test_the_truth_about_every_test_clip_is_beside_the_data(factory):
    truth = pd.read_csv(factory / "truth.csv", index_col="clip")
    clips = {str(c.path.relative_to(factory)): c for c in read_clips(factory) if c.split == "test"}
    assert set(truth.index) == set(clips)
    for path, row in truth.iterrows():
        clip = clips[path]
        assert (clip.label == "anomaly") == isinstance(row["fault"], str)
        if clip.label == "normal":
            assert row["severity"] == 0
            assert np.isnan(row["rate"])
        else:
            assert row["fault"] in MACHINES[clip.machine].faults
            assert 0.1 <= row["severity"] <= 1
            rate = MACHINES[clip.machine].fault_rate(row["fault"], clip.attributes)
            assert row["rate"] == pytest.approx(rate, abs=1e-3) or (
                np.isnan(row["rate"]) and rate is None
            )


def test_nothing_about_faults_is_said_where_a_detector_could_read_it(factory):
    faults = {fault for _, fault in FAULTS}
    for path in (factory / "eval_data").rglob("*"):
        assert not any(fault in path.name for fault in faults)
    for table in factory.rglob("attributes_00.csv"):
        assert not any(fault in table.read_text() for fault in faults)


def test_the_clip_on_disk_has_the_fault_that_the_truth_says(tmp_path):
    counts = {"train_clips": 1, "target_domain_clips": 0, "test_clips": 8, "seconds": 6.0}
    root = write_factory(tmp_path / "factory", references=[], targets=["bearing"], **counts)
    truth = pd.read_csv(root / "truth.csv")
    grave = truth[truth["fault"].isin(["outer_race", "inner_race"]) & (truth["severity"] > 0.6)]
    assert len(grave) >= 2
    for row in grave.itertuples():
        clip, rate = soundfile.read(root / row.clip)
        assert rate == RATE
        assert prominence(envelope(clip, 2600, 3800), row.rate) > 2


def test_physical_parameters_are_beside_the_data(factory):
    known = json.loads((factory / "factory.json").read_text())
    assert known["simulation"] is True
    assert set(known["machines"]) == {"fan", "valve", "pump"}
    parts = {part["part"]: part for part in known["machines"]["pump"]["parts"]}
    assert parts["Impeller"]["blades"] == 5
    assert parts["RollingBearing"]["geometry"] == {
        "balls": 9, "ball_diameter": 9.525, "pitch_diameter": 46.0, "contact_angle": 0.0
    }  # fmt: skip
    assert known["microphones"]["2"]["position"] == list(MICROPHONES["2"].position)


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
        ({"targets": ["xyz"]}, r"no simulated machine 'xyz', known are .*turbine$"),
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
        ({"condition": "broken"}, r"one of \('normal', 'anomaly'\) or a Defect, got 'broken'"),
        ({"condition": Defect("leak", 1)}, r"faults of fan are imbalance, .*, got 'leak'"),
        ({"condition": Defect("imbalance", 2)}, r"severity must be 0 to 1, got 2"),
        ({"domain": "moon"}, r"domain must be one of \('source', 'target'\), got 'moon'"),
        ({"seconds": 0.0}, r"at least 0.5, got 0.0"),
        ({"sample_rate": 8000}, r"sample_rate must be at least 16000, got 8000"),
    ],
)
def test_a_recording_that_cannot_be_is_refused(change, message):
    arguments = {"machine": "fan", "attributes": FAN, "condition": "normal", "seconds": 1.0}
    with pytest.raises(ValueError, match=message):
        simulate(rng=np.random.default_rng(0), **(arguments | change))
