"""A fitted detector as one ONNX file, from the waveform to the decision.

The computation is written down as a graph of ONNX operators by functions that mirror the
detector's parts: ``recording`` (the input), ``spectra`` (front ends), ``representations``,
``scores``, ``outliers``, ``networks``, ``decision``. ``model_file`` writes it, ``comparison`` holds
it against Python.
"""
