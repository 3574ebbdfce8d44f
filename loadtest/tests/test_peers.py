from __future__ import annotations

import pytest

from loadtest.peers.mosec import parse_batches
from loadtest.peers.peer import Batches
from loadtest.verify import WrongAnswerError, check_body_bytes


def test_batches_of_mosec_are_the_sum_and_the_count_of_its_histogram() -> None:
    metrics = (
        'mosec_service_batch_size_bucket{stage="OnnxModel",connection="1",le="+Inf"} 2\n'
        'mosec_service_batch_size_sum{stage="OnnxModel",connection="1"} 40\n'
        'mosec_service_batch_size_count{stage="OnnxModel",connection="1"} 2\n'
    )
    assert parse_batches(metrics) == Batches(40, 2)
    assert parse_batches("") is None


def test_errors_in_place_of_answers_are_seen_by_their_missing_bytes() -> None:
    check_body_bytes(95_000, 1_000, 95, 8)
    check_body_bytes(95_000 + 95 * 8, 1_000, 95, 8)
    with pytest.raises(WrongAnswerError):
        check_body_bytes(0, 1_000, 95, 8)
    with pytest.raises(WrongAnswerError):
        check_body_bytes(0, 0, 95, 8)
