"""Sampling parameters of many kinds."""

from hypothesis import strategies as st

from app.services.engine.sampling.params import SamplingParams

PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.0, 0.3, 1.0]),
    seed=st.integers(0, 2**64 - 1),
    top_k=st.sampled_from([0, 2]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.4]),
    repetition_penalty=st.sampled_from([1.0, 1.2]),
    penalty_window=st.sampled_from([None, 3]),
)
