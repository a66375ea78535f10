"""Train looped language models: data, sampler, checkpoints, trainer.

Every module but `data`, `sampler`, `sources`, `tokens`, `packing`, `config`, `progress` and
`commands` needs torch (the extra `train`); those may be imported without it.
"""
