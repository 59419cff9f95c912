# libbaton-xfer, shared and static, as others install it: src/xfer/ and what it
# needs of src/base/, libc alone below it, and of its symbols only those that
# its installed headers declare. Beside it the libraries of src/dropin/, under
# the names that users of MemFabric and Mooncake link.
include(GNUInstallDirs)

set(xfer_base src/base/buf.c src/base/clock.c src/base/err.c src/base/log.c
  src/base/map.c src/base/mem.c)
file(GLOB xfer_sources CONFIGURE_DEPENDS src/xfer/*.c)

# As objects: the shared library and the static one are made of the same.
add_library(xfer-objects OBJECT ${xfer_sources} ${xfer_base})
target_include_directories(xfer-objects PRIVATE src)
target_compile_options(xfer-objects PRIVATE -fPIC -fvisibility=hidden)

# One object, in which only exported names are still names.
set(xfer_one ${CMAKE_BINARY_DIR}/lib/baton-xfer.o)
set(xfer_archive ${CMAKE_BINARY_DIR}/lib/libbaton-xfer.a)
add_custom_command(OUTPUT ${xfer_archive} ${xfer_one}
  COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/lib
  COMMAND ${CMAKE_C_COMPILER} -nostdlib -r -o ${xfer_one}
    $<TARGET_OBJECTS:xfer-objects>
  COMMAND ${CMAKE_OBJCOPY} --localize-hidden ${xfer_one}
  COMMAND ${CMAKE_COMMAND} -E rm -f ${xfer_archive}
  COMMAND ${CMAKE_AR} rcs ${xfer_archive} ${xfer_one}
  DEPENDS xfer-objects $<TARGET_OBJECTS:xfer-objects>
  COMMAND_EXPAND_LISTS VERBATIM)
add_custom_target(xfer-static ALL DEPENDS ${xfer_archive})

# For the shared one the same, whose threads and libraries come by the versions
# that they had before glibc 2.34 took them in: it loads from 2.27 on. There
# they lie in libpthread and libdl, which are named for that.
set(xfer_moved ${CMAKE_SOURCE_DIR}/cmake/glibc-${CMAKE_SYSTEM_PROCESSOR}.txt)
set(xfer_older ${CMAKE_BINARY_DIR}/lib/baton-xfer-shared.o)
add_custom_command(OUTPUT ${xfer_older}
  COMMAND ${CMAKE_OBJCOPY} --redefine-syms=${xfer_moved} ${xfer_one}
    ${xfer_older}
  DEPENDS ${xfer_one} ${xfer_moved} VERBATIM)
add_library(xfer-shared SHARED ${xfer_older})
set_source_files_properties(${xfer_older} PROPERTIES EXTERNAL_OBJECT ON
  GENERATED ON)
set_target_properties(xfer-shared PROPERTIES OUTPUT_NAME baton-xfer
  LINKER_LANGUAGE C VERSION ${PROJECT_VERSION} SOVERSION 0
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
target_include_directories(xfer-shared PUBLIC src)
target_link_options(xfer-shared PRIVATE -Wl,-z,defs,-z,now
  -Wl,--no-as-needed,-l:libpthread.so.0,-l:libdl.so.2,--as-needed)

function(dropin_library target name source)
  add_library(${target} SHARED ${source} src/base/map.c src/base/mem.c)
  set_target_properties(${target} PROPERTIES OUTPUT_NAME ${name}
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib/baton
    BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ORIGIN:$ORIGIN/..")
  target_compile_options(${target} PRIVATE -fvisibility=hidden)
  target_link_options(${target} PRIVATE -Wl,-z,defs,-z,now,--as-needed)
  target_link_libraries(${target} PRIVATE xfer-shared Threads::Threads)
  install(TARGETS ${target} LIBRARY
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/baton COMPONENT xfer)
endfunction()
dropin_library(dropin-smem mf_smem src/dropin/smem.c)
dropin_library(dropin-transfer-engine transfer_engine
  src/dropin/transfer_engine_c.c)

# Installed: include/baton/xfer/xfer.h and others, as this tree includes them.
install(TARGETS xfer-shared LIBRARY COMPONENT xfer NAMELINK_COMPONENT xfer
  DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${xfer_archive} DESTINATION ${CMAKE_INSTALL_LIBDIR}
  COMPONENT xfer)
install(FILES src/xfer/xfer.h src/xfer/store.h src/xfer/binding.h
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/baton/xfer COMPONENT xfer)
install(FILES src/base/err.h
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/baton/base COMPONENT xfer)
install(FILES src/dropin/smem.h src/dropin/smem_trans.h
    src/dropin/smem_trans_def.h src/dropin/transfer_engine_c.h
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/baton/dropin COMPONENT xfer)
configure_file(cmake/baton-xfer.pc.in ${CMAKE_BINARY_DIR}/lib/baton-xfer.pc
  @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/lib/baton-xfer.pc
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT xfer)
