from baton_shim import hand_over

if __name__ == "__main__":
    # This module of SGLang balances prefill and decode workers only.
    hand_over("launch_router", "--pd-disaggregation", "--mini-lb")
