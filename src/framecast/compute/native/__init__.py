"""Native code: convolutions with fewer multiplications on processors, compiled at first use."""
