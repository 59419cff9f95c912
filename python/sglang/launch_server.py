from baton_shim import hand_over

if __name__ == "__main__":
    hand_over("launch_server")
