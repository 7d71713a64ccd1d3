"""A text embedder for Triton's python backend, from feature hashing: no trained model, no GPU, only numpy.

It has the interface of a trained sentence embedder (text in, 384 numbers of length 1 out), but it knows no meaning.
Texts that share words and pieces of words come out close; synonyms don't. It is there so that the path from client to
Triton to model and back can be run, tested and measured anywhere; a trained embedder takes its place by name.

The same text gives the same numbers on every machine and in every run.
"""

import re
import unicodedata
import zlib

import numpy as np

try:
    import triton_python_backend_utils as pb_utils
except ImportError:  # Only Triton has it; `embed` works without.
    pb_utils = None

DIMENSIONS = 384
# A character n-gram keeps spelling variants near each other; a whole word counts for more than its pieces.
GRAM_LENGTHS = (3, 4)
WORD_WEIGHT = 2.0


def features(text):
    """Yields (feature, weight) for the words of a text and for the pieces of the words."""
    for word in re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()):
        yield word, WORD_WEIGHT
        padded = f"<{word}>"
        for length in GRAM_LENGTHS:
            for start in range(len(padded) - length + 1):
                yield f"{length}:{padded[start : start + length]}", 1.0


def embed(text):
    """Returns the embedding of one text: float32, length 1; all zeros when it has no word.

    Each feature is added to one of the dimensions with a sign, both told by its CRC-32 (signed feature hashing:
    Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009).
    """
    vector = np.zeros(DIMENSIONS, dtype=np.float32)
    for feature, weight in features(text):
        code = zlib.crc32(feature.encode("utf-8"))
        vector[(code >> 1) % DIMENSIONS] += weight if code & 1 else -weight
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else vector


class TritonPythonModel:
    """What Triton's python backend calls."""

    def execute(self, requests):
        """Answers each request of a batch; a text that is no UTF-8 is that request's error alone."""
        return [self._answer(request) for request in requests]

    @staticmethod
    def _answer(request):
        texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
        try:
            rows = [embed(text.decode("utf-8")) for text in texts.reshape(-1)]
        except UnicodeDecodeError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"TEXT is not UTF-8: {error}"))
        embedding = np.stack(rows).astype(np.float32)
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("EMBEDDING", embedding)])
