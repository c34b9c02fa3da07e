"""From a model and prompts to facts: checkpoints, prompt sets, recordings of what a decode really did.

The public names are imported on first use, so that reading traces costs no import of torch.
"""

from verify.lazy import public_names

# public name -> the module that defines it
_HOMES = {
    "Checkpoint": "calibrate.models.checkpoint",
    "load_checkpoint": "calibrate.models.checkpoint",
    "StateLog": "calibrate.traces.state_log",
    "Traces": "calibrate.traces.table",
    "read_states": "calibrate.traces.state_log",
    "read_traces": "calibrate.traces.table",
    "record": "calibrate.recording.recorder",
    "record_states": "calibrate.recording.states",
    "encode_for": "calibrate.prompts.encoding",
    "load_prompt_set": "calibrate.prompts.source",
}

__getattr__, __dir__, __all__ = public_names(__name__, _HOMES)
